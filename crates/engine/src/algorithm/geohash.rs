//! Places on the globe as 52-bit numbers, and the ranges of such numbers to search for what is near a place.
//!
//! # Guarantees
//! Scores, coordinates, distances, hashes and the order of the ranges are Redis 7.0's, to the last bit on Linux with glibc: the order
//! of each floating point operation is part of the contract. The ranges of [`search_ranges`] hold every place that lies within
//! the shape, and others; [`Shape::distance_within_m`] says which.
//!
//! # Failure
//! [`Place::new`] refuses coordinates outside of the grid. Every score decodes to a place, also one that GEOADD never made.
//!
//! # How it works
//! Latitude and longitude are halved 26 times each; the bits of the choices, interleaved, are the hash. Places that share the
//! upper bits share a cell, so a cell is a range of scores. A search picks cells about as large as its shape and looks into the one with
//! its centre and the eight around it, without those that the shape cannot reach.

use std::ops::Range;

/// The largest latitude of the grid, north and south: where the Mercator projection becomes a square.
pub(crate) const LATITUDE_MAX: f64 = 85.051_128_78;

/// The largest longitude, east and west.
pub(crate) const LONGITUDE_MAX: f64 = 180.0;

/// Bits per coordinate in a score: twice as many are what a double holds exactly.
const STEPS_MAX: u32 = 26;

const EARTH_RADIUS_M: f64 = 6_372_797.560_856;

/// Half of the equator in the projection.
const MERCATOR_MAX_M: f64 = 20_037_726.37;

/// A place by its coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    /// Degrees east.
    pub(crate) longitude: f64,
    /// Degrees north.
    pub(crate) latitude: f64,
}

impl Place {
    /// A place on the grid; `None` outside of it.
    pub(crate) fn new(longitude: f64, latitude: f64) -> Option<Self> {
        let on_grid = longitude.abs() <= LONGITUDE_MAX && latitude.abs() <= LATITUDE_MAX;
        on_grid.then_some(Self { longitude, latitude })
    }

    /// The middle of the smallest cell that a score names.
    pub(crate) fn from_score(score: f64) -> Self {
        let area = Cell { bits: score_bits(score), steps: STEPS_MAX }.area();
        Self {
            longitude: ((area.west + area.east) / 2.0).clamp(-LONGITUDE_MAX, LONGITUDE_MAX),
            latitude: ((area.south + area.north) / 2.0).clamp(-LATITUDE_MAX, LATITUDE_MAX),
        }
    }

    /// The score that GEOADD stores.
    pub(crate) fn score(self) -> f64 {
        Cell::of(self, STEPS_MAX, LATITUDE_MAX).bits as f64
    }

    /// The distance over the globe, by the haversine formula.
    pub(crate) fn distance_m(self, other: Self) -> f64 {
        let half_longitude = ((other.longitude.rad() - self.longitude.rad()) / 2.0).sin();
        if half_longitude == 0.0 {
            return latitude_distance_m(self.latitude, other.latitude);
        }
        let (south, north) = (self.latitude.rad(), other.latitude.rad());
        let half_latitude = ((north - south) / 2.0).sin();
        let chord = half_latitude * half_latitude + south.cos() * north.cos() * half_longitude * half_longitude;
        2.0 * EARTH_RADIUS_M * chord.sqrt().asin()
    }
}

/// The standard geohash of a score, as GEOHASH replies it.
///
/// It counts latitudes from pole to pole, unlike scores, and has 55 bits, of which a score knows 52: the last letter is always `0`.
pub(crate) fn standard_hash(score: f64) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    const POLE: f64 = 90.0;
    let bits = Cell::of(Place::from_score(score), STEPS_MAX, POLE).bits;
    let mut text = [b'0'; 11];
    for (at, letter) in text[..10].iter_mut().enumerate() {
        *letter = ALPHABET[(bits >> (52 - 5 * (at + 1))) as usize & 0x1f];
    }
    text
}

/// A unit of length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LengthUnit {
    /// `m`
    Metre,
    /// `km`
    Kilometre,
    /// `ft`
    Foot,
    /// `mi`
    Mile,
}

impl LengthUnit {
    /// Reads a name in any case.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let units: [(&[u8], Self); 4] =
            [(b"m", Self::Metre), (b"km", Self::Kilometre), (b"ft", Self::Foot), (b"mi", Self::Mile)];
        units.into_iter().find(|(text, _)| name.eq_ignore_ascii_case(text)).map(|(_, unit)| unit)
    }

    /// How many metres it has.
    pub(crate) fn metres(self) -> f64 {
        match self {
            Self::Metre => 1.0,
            Self::Kilometre => 1000.0,
            Self::Foot => 0.3048,
            Self::Mile => 1609.34,
        }
    }
}

/// Appends a distance with four decimals, as GEODIST and WITHDIST reply it.
pub(crate) fn write_distance(distance_m: f64, unit: LengthUnit, out: &mut Vec<u8>) {
    // Redis 7.0.15 scales first and rounds the product, ties to even. It differs from `%.4f`, which rounds the exact value, once in
    // a million distances. A distance on the globe is far below the 9e14 units where the product would not fit.
    const SCALE: u64 = 10_000;
    let scaled = (distance_m / unit.metres() * SCALE as f64).round_ties_even() as u64;
    out.extend_from_slice(format!("{}.{:04}", scaled / SCALE, scaled % SCALE).as_bytes());
}

/// What is searched around a centre, in `unit`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// The middle.
    pub(crate) centre: Place,
    /// How far it reaches.
    pub(crate) extent: Extent,
    /// What the extent counts, and the distances of a reply.
    pub(crate) unit: LengthUnit,
}

/// How far a shape reaches.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Extent {
    /// A circle.
    Radius(f64),
    /// A box, its sides along the meridians and the parallels.
    Box {
        /// From west to east.
        width: f64,
        /// From south to north.
        height: f64,
    },
}

impl Shape {
    /// How far from the centre a place within the shape is, in metres; `None` if it lies outside.
    pub(crate) fn distance_within_m(&self, place: Place) -> Option<f64> {
        let metres = self.unit.metres();
        match self.extent {
            Extent::Radius(radius) => {
                let distance_m = self.centre.distance_m(place);
                (distance_m <= radius * metres).then_some(distance_m)
            }
            Extent::Box { width, height } => {
                let parallel = Place { longitude: self.centre.longitude, latitude: place.latitude };
                let within = latitude_distance_m(place.latitude, self.centre.latitude) <= height * metres / 2.0
                    && place.distance_m(parallel) <= width * metres / 2.0;
                within.then(|| self.centre.distance_m(place))
            }
        }
    }

    /// What lies within these bounds contains the shape, seen from its hemisphere.
    fn bounds(&self) -> Area {
        let metres = self.unit.metres();
        let (half_width_m, half_height_m) = match self.extent {
            Extent::Radius(radius) => (metres * radius, metres * radius),
            Extent::Box { width, height } => (metres * (width / 2.0), metres * (height / 2.0)),
        };
        let Place { longitude, latitude } = self.centre;
        let latitude_delta = (half_height_m / EARTH_RADIUS_M).deg();
        // A degree of longitude is shortest at the edge towards the pole, so that edge asks for most of them.
        let towards_pole = if latitude < 0.0 { latitude - latitude_delta } else { latitude + latitude_delta };
        let longitude_delta = (half_width_m / EARTH_RADIUS_M / towards_pole.rad().cos()).deg();
        Area {
            south: latitude - latitude_delta,
            north: latitude + latitude_delta,
            west: longitude - longitude_delta,
            east: longitude + longitude_delta,
        }
    }

    /// The radius of a circle around the shape.
    fn radius_m(&self) -> f64 {
        let radius = match self.extent {
            Extent::Radius(radius) => radius,
            Extent::Box { width, height } => ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt(),
        };
        radius * self.unit.metres()
    }
}

/// The ranges of scores to look through for a shape, at most nine, in the order in which an unsorted reply lists their members.
pub(crate) fn search_ranges(shape: &Shape) -> Vec<Range<f64>> {
    let bounds = shape.bounds();
    let mut steps = steps_for(shape.radius_m(), shape.centre.latitude);
    let mut centre = Cell::of(shape.centre, steps, LATITUDE_MAX);
    if steps > 1 && !centre.neighbours_reach(&bounds) {
        steps -= 1;
        centre = Cell::of(shape.centre, steps, LATITUDE_MAX);
    }
    let area = centre.area();
    // With two cells per direction, a neighbour on one side is one on the other side too: none may be left out.
    let many = steps >= 2;
    let skip_south = many && area.south < bounds.south;
    let skip_north = many && area.north > bounds.north;
    let skip_west = many && area.west < bounds.west;
    let skip_east = many && area.east > bounds.east;
    let mut cells: Vec<Cell> = Vec::with_capacity(AROUND.len());
    // At few steps cells come up twice. Redis leaves out what equals the one before, unless that is the first.
    let mut last: Option<Cell> = None;
    for (at, (east, north)) in AROUND.into_iter().enumerate() {
        let skipped = (north < 0 && skip_south)
            || (north > 0 && skip_north)
            || (east < 0 && skip_west)
            || (east > 0 && skip_east);
        let cell = centre.moved(east, north);
        if skipped || last == Some(cell) {
            continue;
        }
        cells.push(cell);
        last = (at > 0).then_some(cell);
    }
    cells.into_iter().map(Cell::scores).collect()
}

/// The cell itself and those around it, as (east, north), in Redis's order.
const AROUND: [(i32, i32); 9] = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (-1, 1), (1, -1), (-1, -1)];

/// Halvings that make cells about as large as a circle.
fn steps_for(mut radius_m: f64, latitude: f64) -> u32 {
    if radius_m == 0.0 {
        return STEPS_MAX;
    }
    let mut steps = 1;
    while radius_m < MERCATOR_MAX_M {
        radius_m *= 2.0;
        steps += 1;
    }
    // Two fewer, so that the nine cells hold the circle in most cases, and fewer towards the poles, where cells are narrow.
    steps -= 2;
    steps -= i32::from(latitude.abs() > 66.0) + i32::from(latitude.abs() > 80.0);
    steps.clamp(1, STEPS_MAX as i32) as u32
}

/// A part of the grid.
struct Area {
    south: f64,
    north: f64,
    west: f64,
    east: f64,
}

/// A cell after so many halvings of each coordinate: longitude in the odd bits, latitude in the even ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cell {
    bits: u64,
    steps: u32,
}

const LATITUDE_BITS: u64 = 0x5555_5555_5555_5555;

impl Cell {
    /// The cell of a place, with latitudes up to `latitude_max`.
    fn of(place: Place, steps: u32, latitude_max: f64) -> Self {
        let cells = (1u64 << steps) as f64;
        let latitude = (place.latitude + latitude_max) / (latitude_max - -latitude_max);
        let longitude = (place.longitude + LONGITUDE_MAX) / (LONGITUDE_MAX - -LONGITUDE_MAX);
        Self { bits: spread((latitude * cells) as u32) | spread((longitude * cells) as u32) << 1, steps }
    }

    fn area(self) -> Area {
        let cells = (1u64 << self.steps) as f64;
        let edge = |index: u32, max: f64| -max + f64::from(index) / cells * (max - -max);
        let (latitude, longitude) = (gather(self.bits), gather(self.bits >> 1));
        Area {
            south: edge(latitude, LATITUDE_MAX),
            north: edge(latitude.wrapping_add(1), LATITUDE_MAX),
            west: edge(longitude, LONGITUDE_MAX),
            east: edge(longitude.wrapping_add(1), LONGITUDE_MAX),
        }
    }

    /// The cell so far away; the grid has no end in either direction.
    ///
    /// A coordinate at its very maximum lies one cell beyond the last one. Redis leaves it there unless it moves along that coordinate.
    fn moved(self, east: i32, north: i32) -> Self {
        let mask = u64::MAX >> (64 - 2 * self.steps);
        let moved = |bits: u64, by: i32| match by {
            0 => bits & LATITUDE_BITS,
            _ => spread(gather(bits).wrapping_add_signed(by)) & mask,
        };
        // The mask has the same number of bits for either coordinate.
        Self { bits: moved(self.bits, north) | moved(self.bits >> 1, east) << 1, steps: self.steps }
    }

    /// Whether the four cells beside this one reach as far as the bounds.
    fn neighbours_reach(self, bounds: &Area) -> bool {
        self.moved(0, 1).area().north >= bounds.north
            && self.moved(0, -1).area().south <= bounds.south
            && self.moved(1, 0).area().east >= bounds.east
            && self.moved(-1, 0).area().west <= bounds.west
    }

    /// The scores of all places in the cell.
    fn scores(self) -> Range<f64> {
        let unused = 2 * (STEPS_MAX - self.steps);
        ((self.bits << unused) as f64)..(((self.bits + 1) << unused) as f64)
    }
}

/// Moves bit n to bit 2n.
fn spread(value: u32) -> u64 {
    let mut bits = u64::from(value);
    for (shift, mask) in SPREADS {
        bits = (bits | bits << shift) & mask;
    }
    bits
}

/// Moves bit 2n to bit n and drops the odd ones.
fn gather(value: u64) -> u32 {
    let mut bits = value & LATITUDE_BITS;
    for (shift, mask) in [(1, SPREADS[3].1), (2, SPREADS[2].1), (4, SPREADS[1].1), (8, SPREADS[0].1), (16, 0xffff_ffff)]
    {
        bits = (bits | bits >> shift) & mask;
    }
    bits as u32
}

const SPREADS: [(u32, u64); 5] = [
    (16, 0x0000_ffff_0000_ffff),
    (8, 0x00ff_00ff_00ff_00ff),
    (4, 0x0f0f_0f0f_0f0f_0f0f),
    (2, 0x3333_3333_3333_3333),
    (1, LATITUDE_BITS),
];

/// A score as bits, also one that GEOADD never made: a conversion as x86-64 does it.
fn score_bits(score: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    if score < HALF {
        return score as i64 as u64;
    }
    let above = score - HALF;
    if above < HALF { above as u64 | 1 << 63 } else { 0 }
}

fn latitude_distance_m(one: f64, other: f64) -> f64 {
    EARTH_RADIUS_M * (other.rad() - one.rad()).abs()
}

/// Degrees and radians by one multiplication or division, as Redis has them; the standard library's differ in the last bit.
trait Angle {
    fn rad(self) -> f64;
    fn deg(self) -> f64;
}

const RADIANS_PER_DEGREE: f64 = std::f64::consts::PI / 180.0;

impl Angle for f64 {
    fn rad(self) -> f64 {
        self * RADIANS_PER_DEGREE
    }

    fn deg(self) -> f64 {
        self / RADIANS_PER_DEGREE
    }
}

#[cfg(test)]
mod tests {
    use super::{Extent, LengthUnit, Place, Shape, gather, search_ranges, spread, standard_hash, write_distance};

    const PALERMO: Place = Place { longitude: 13.361389, latitude: 38.115556 };
    const CATANIA: Place = Place { longitude: 15.087269, latitude: 37.502669 };

    #[test]
    fn scores_and_places_are_those_of_redis() {
        assert_eq!(PALERMO.score(), 3_479_099_956_230_698.0);
        assert_eq!(CATANIA.score(), 3_479_447_370_796_909.0);
        let back = Place::from_score(PALERMO.score());
        assert_eq!((back.longitude, back.latitude), (13.361389338970184, 38.1155563954963));
        assert_eq!(&standard_hash(PALERMO.score()), b"sqc8b49rny0");
        assert_eq!(&standard_hash(CATANIA.score()), b"sqdtr74hyu0");
    }

    #[test]
    fn distances_are_those_of_redis() {
        let (one, other) = (Place::from_score(PALERMO.score()), Place::from_score(CATANIA.score()));
        let text = |distance_m, unit| {
            let mut out = Vec::new();
            write_distance(distance_m, unit, &mut out);
            String::from_utf8(out).expect("digits")
        };
        assert_eq!(text(one.distance_m(other), LengthUnit::Metre), "166274.1516");
        assert_eq!(text(one.distance_m(other), LengthUnit::Mile), "103.3182");
        assert_eq!(text(0.0, LengthUnit::Metre), "0.0000");
        // The exact quotient is 33816469.45634999871...
        assert_eq!(text(10_307_259.890_295_48, LengthUnit::Foot), "33816469.4564");
    }

    #[test]
    fn places_outside_of_the_grid_are_refused() {
        assert!(Place::new(180.0, -85.05112878).is_some());
        for (longitude, latitude) in [(180.1, 0.0), (0.0, 85.06), (f64::NAN, 0.0), (0.0, f64::INFINITY)] {
            assert_eq!(Place::new(longitude, latitude), None);
        }
    }

    #[test]
    fn the_ranges_of_a_shape_hold_every_place_within_it() {
        let mut inside = 0;
        for (radius, latitude) in [(1.0, 0.0), (50.0, 37.0), (200.0, -60.0), (1_000.0, 70.0), (9_000.0, 20.0)] {
            let centre = Place { longitude: 15.0, latitude };
            let shapes = [Extent::Radius(radius), Extent::Box { width: radius, height: radius / 2.0 }];
            for extent in shapes {
                let shape = Shape { centre, extent, unit: LengthUnit::Kilometre };
                let ranges = search_ranges(&shape);
                for step in 0..4_000 {
                    let (across, up) = (f64::from(step % 63) / 31.0 - 1.0, f64::from(step / 63) / 31.0 - 1.0);
                    let place = Place::new(15.0 + across * radius / 60.0, latitude + up * radius / 110.0);
                    let Some(place) = place.filter(|place| shape.distance_within_m(*place).is_some()) else { continue };
                    inside += 1;
                    assert!(ranges.iter().any(|range| range.contains(&place.score())), "{shape:?} {place:?}");
                }
            }
        }
        assert!(inside > 10_000, "only {inside} places were tested");
    }

    /// The easternmost meridian was once taken for the westernmost one, so a search there found what lies on the other side of the date
    /// line and missed its own centre.
    #[test]
    fn search_from_the_easternmost_meridian_finds_its_own_centre_only() {
        let east = Place { longitude: 180.0, latitude: -85.0 };
        let west = Place { longitude: -180.0, latitude: -85.0 };
        let shape = Shape { centre: east, extent: Extent::Radius(1.0), unit: LengthUnit::Mile };
        let ranges = search_ranges(&shape);
        assert!(ranges.iter().any(|range| range.contains(&east.score())));
        assert!(!ranges.first().is_some_and(|range| range.contains(&west.score())));
    }

    #[test]
    fn bits_spread_and_gather() {
        assert_eq!(spread(0b1011), 0b100_0101);
        assert!(
            [0, 1, 0xdead_beef, u32::MAX].into_iter().all(|value| gather(spread(value) | spread(!value) << 1) == value)
        );
    }

    #[test]
    fn any_score_is_a_place() {
        for score in [-1.0, f64::INFINITY, f64::NEG_INFINITY, 1e300, 9.3e18, 0.5] {
            let place = Place::from_score(score);
            assert_eq!(Place::new(place.longitude, place.latitude), Some(place), "{score}");
        }
    }
}
