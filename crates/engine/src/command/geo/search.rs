//! GEOSEARCH, GEORADIUS and GEORADIUSBYMEMBER, with the forms that store.
//!
//! # How it works
//! All are one search with different words for it. Errors come in the order in which Redis finds them: a member that is to be the centre
//! is looked up where it is named, so what follows it is not looked at if it is missing.

use std::ops::Bound;

use acteon_resp::ReplyWriter;

use super::{parse_place, parse_unit, write_length, write_place};
use crate::algorithm::geohash::{Extent, LengthUnit, Place, Shape, search_ranges};
use crate::command::call::Call;
use crate::command::error::CommandError;
use crate::command::options::{integer, is};
use crate::command::sorted_set;
use crate::value::{ScoreRange, Zset};

/// Which command it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// `GEOSEARCH key ..`
    Search,
    /// `GEOSEARCHSTORE destination key ..`
    SearchStore,
    /// `GEORADIUS key longitude latitude radius unit ..`
    Radius { may_store: bool },
    /// `GEORADIUSBYMEMBER key member radius unit ..`
    RadiusByMember { may_store: bool },
}

pub(super) fn geosearch(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    search(call, Form::Search)
}

pub(super) fn geosearchstore(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    search(call, Form::SearchStore)
}

pub(super) fn georadius(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    search(call, Form::Radius { may_store: true })
}

pub(super) fn georadius_ro(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    search(call, Form::Radius { may_store: false })
}

pub(super) fn georadiusbymember(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    search(call, Form::RadiusByMember { may_store: true })
}

pub(super) fn georadiusbymember_ro(call: &mut Call<'_, '_>) -> Result<(), CommandError> {
    search(call, Form::RadiusByMember { may_store: false })
}

fn search(call: &mut Call<'_, '_>, form: Form) -> Result<(), CommandError> {
    let limits = call.session.limits;
    let source = if form == Form::SearchStore { call.args[2] } else { call.args[1] };
    let slot = call.keys.read(source);
    let set = slot.value::<Zset>()?;
    let query = Query::parse(form, set, call.args)?;
    // Without a source there may be no centre either.
    let found = match (set, query.shape()) {
        (Some(set), Some(shape)) => find(set, &shape, &query),
        _ => Vec::new(),
    };
    let Some(destination) = query.destination else {
        write_found(&mut call.reply, &found, &query);
        return Ok(());
    };
    let members: Vec<_> = found.iter().map(|found| (found.member, found.stored_score(&query))).collect();
    let result = Zset::from_members(&members, &limits);
    let event = if form == Form::SearchStore { "geosearchstore" } else { "georadiusstore" };
    drop(members);
    drop(found);
    drop(slot);
    sorted_set::store(call, destination, result, event);
    Ok(())
}

/// A member that lies within the shape.
struct Found<'s> {
    member: &'s [u8],
    score: f64,
    distance_m: f64,
}

impl Found<'_> {
    fn stored_score(&self, query: &Query<'_>) -> f64 {
        if query.stores_distance { self.distance_m / query.unit.metres() } else { self.score }
    }
}

/// The members within the shape, as many as wanted, in the order wanted.
fn find<'s>(set: &'s Zset, shape: &Shape, query: &Query<'_>) -> Vec<Found<'s>> {
    let enough = if query.takes_any { query.count_max() } else { usize::MAX };
    let mut found: Vec<_> = search_ranges(shape)
        .into_iter()
        .flat_map(|scores| {
            let scores = ScoreRange { min: Bound::Included(scores.start), max: Bound::Excluded(scores.end) };
            set.range(set.ranks_by_score(&scores))
        })
        .filter_map(|(member, score)| {
            let distance_m = shape.distance_within_m(Place::from_score(score))?;
            Some(Found { member, score, distance_m })
        })
        .take(enough)
        .collect();
    match query.effective_order() {
        Some(Order::Nearest) => found.sort_by(|one, other| one.distance_m.total_cmp(&other.distance_m)),
        Some(Order::Farthest) => found.sort_by(|one, other| other.distance_m.total_cmp(&one.distance_m)),
        None => {}
    }
    found.truncate(query.count_max());
    found
}

fn write_found(reply: &mut ReplyWriter<'_>, found: &[Found<'_>], query: &Query<'_>) {
    let extras = usize::from(query.with_distance) + usize::from(query.with_score) + usize::from(query.with_place);
    reply.array(found.len());
    for found in found {
        if extras > 0 {
            reply.array(1 + extras);
        }
        reply.bulk(found.member);
        if query.with_distance {
            write_length(reply, found.distance_m, query.unit);
        }
        if query.with_score {
            reply.integer(found.score as i64);
        }
        if query.with_place {
            write_place(reply, Place::from_score(found.score));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Nearest,
    Farthest,
}

/// What a search is after.
struct Query<'a> {
    /// The middle of the shape.
    centre: Centre,
    extent: Option<Extent>,
    unit: LengthUnit,
    order: Option<Order>,
    count: Option<usize>,
    /// ANY: the first that are found will do.
    takes_any: bool,
    with_distance: bool,
    with_score: bool,
    with_place: bool,
    destination: Option<&'a [u8]>,
    stores_distance: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Centre {
    Unknown,
    At(Place),
    /// A member of a set that does not exist.
    Absent,
    Member(Place),
}

impl<'a> Query<'a> {
    fn new() -> Self {
        Self {
            centre: Centre::Unknown,
            extent: None,
            unit: LengthUnit::Metre,
            order: None,
            count: None,
            takes_any: false,
            with_distance: false,
            with_score: false,
            with_place: false,
            destination: None,
            stores_distance: false,
        }
    }

    fn parse(form: Form, set: Option<&Zset>, args: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut query = Self::new();
        let mut words = query.parse_head(form, set, args)?;
        while let Some((word, rest)) = words.split_first() {
            words = if query.take_flag(word) {
                rest
            } else {
                match query.take_option(form, set, word, rest)? {
                    Some(rest) => rest,
                    None => return Err(CommandError::Syntax),
                }
            };
        }
        query.check(form, args[0])?;
        Ok(query)
    }

    /// Reads what stands at a fixed place; returns the options.
    fn parse_head<'w>(
        &mut self,
        form: Form,
        set: Option<&Zset>,
        args: &'w [&'a [u8]],
    ) -> Result<&'w [&'a [u8]], CommandError> {
        match form {
            Form::Search => Ok(&args[2..]),
            Form::SearchStore => {
                self.destination = Some(args[1]);
                Ok(&args[3..])
            }
            Form::Radius { .. } => {
                self.centre = Centre::At(parse_place(args[2], args[3])?);
                self.set_radius(args[4], args[5])?;
                Ok(&args[6..])
            }
            Form::RadiusByMember { .. } => {
                self.centre = centre_of(set, args[2])?;
                if set.is_some() {
                    self.set_radius(args[3], args[4])?;
                }
                Ok(&args[5..])
            }
        }
    }

    /// Whether `word` is an option by itself, which it then sets.
    fn take_flag(&mut self, word: &[u8]) -> bool {
        match word {
            _ if is(word, "WITHDIST") => self.with_distance = true,
            _ if is(word, "WITHHASH") => self.with_score = true,
            _ if is(word, "WITHCOORD") => self.with_place = true,
            _ if is(word, "ANY") => self.takes_any = true,
            _ if is(word, "ASC") => self.order = Some(Order::Nearest),
            _ if is(word, "DESC") => self.order = Some(Order::Farthest),
            _ => return false,
        }
        true
    }

    /// Reads an option with what belongs to it; returns what follows, and `None` if it is no option here.
    fn take_option<'w>(
        &mut self,
        form: Form,
        set: Option<&Zset>,
        word: &[u8],
        rest: &'w [&'a [u8]],
    ) -> Result<Option<&'w [&'a [u8]]>, CommandError> {
        if let [count, rest @ ..] = rest
            && is(word, "COUNT")
        {
            self.count = Some(parse_count(count)?);
            return Ok(Some(rest));
        }
        match form {
            Form::Search | Form::SearchStore => self.take_search_option(form, set, word, rest),
            Form::Radius { may_store } | Form::RadiusByMember { may_store } => {
                Ok(if may_store { self.take_destination(word, rest) } else { None })
            }
        }
    }

    fn take_destination<'w>(&mut self, word: &[u8], rest: &'w [&'a [u8]]) -> Option<&'w [&'a [u8]]> {
        let (destination, rest) = rest.split_first()?;
        let stores_distance = is(word, "STOREDIST");
        if !stores_distance && !is(word, "STORE") {
            return None;
        }
        (self.destination, self.stores_distance) = (Some(*destination), stores_distance);
        Some(rest)
    }

    fn take_search_option<'w>(
        &mut self,
        form: Form,
        set: Option<&Zset>,
        word: &[u8],
        rest: &'w [&'a [u8]],
    ) -> Result<Option<&'w [&'a [u8]]>, CommandError> {
        match rest {
            [member, rest @ ..] if is(word, "FROMMEMBER") && !matches!(self.centre, Centre::At(_)) => {
                self.centre = centre_of(set, member)?;
                Ok(Some(rest))
            }
            [longitude, latitude, rest @ ..]
                if is(word, "FROMLONLAT") && matches!(self.centre, Centre::Unknown | Centre::At(_)) =>
            {
                self.centre = Centre::At(parse_place(longitude, latitude)?);
                Ok(Some(rest))
            }
            [radius, unit, rest @ ..] if is(word, "BYRADIUS") && !matches!(self.extent, Some(Extent::Box { .. })) => {
                self.set_radius(radius, unit)?;
                Ok(Some(rest))
            }
            [width, height, unit, rest @ ..]
                if is(word, "BYBOX") && !matches!(self.extent, Some(Extent::Radius(_))) =>
            {
                self.set_box(width, height, unit)?;
                Ok(Some(rest))
            }
            rest if is(word, "STOREDIST") && form == Form::SearchStore => {
                self.stores_distance = true;
                Ok(Some(rest))
            }
            _ => Ok(None),
        }
    }

    fn set_radius(&mut self, radius: &[u8], unit: &[u8]) -> Result<(), CommandError> {
        let radius = acteon_resp::parse_f64(radius).ok_or(CommandError::text("ERR need numeric radius"))?;
        if radius < 0.0 {
            return Err(CommandError::text("ERR radius cannot be negative"));
        }
        self.unit = parse_unit(unit)?;
        self.extent = Some(Extent::Radius(radius));
        Ok(())
    }

    fn set_box(&mut self, width: &[u8], height: &[u8], unit: &[u8]) -> Result<(), CommandError> {
        let width = acteon_resp::parse_f64(width).ok_or(CommandError::text("ERR need numeric width"))?;
        let height = acteon_resp::parse_f64(height).ok_or(CommandError::text("ERR need numeric height"))?;
        if width < 0.0 || height < 0.0 {
            return Err(CommandError::text("ERR height or width cannot be negative"));
        }
        self.unit = parse_unit(unit)?;
        self.extent = Some(Extent::Box { width, height });
        Ok(())
    }

    /// What can be said only of all options together.
    fn check(&self, form: Form, name: &[u8]) -> Result<(), CommandError> {
        let is_search = matches!(form, Form::Search | Form::SearchStore);
        let name = || String::from_utf8_lossy(name);
        let text = if self.destination.is_some() && (self.with_distance || self.with_score || self.with_place) {
            let what = if is_search { "GEOSEARCHSTORE" } else { "STORE option in GEORADIUS" };
            format!("ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options")
        } else if is_search && self.centre == Centre::Unknown {
            format!("ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {}", name())
        } else if is_search && self.extent.is_none() {
            format!("ERR exactly one of BYRADIUS and BYBOX can be specified for {}", name())
        } else if self.takes_any && self.count.is_none() {
            "ERR the ANY argument requires COUNT argument".to_owned()
        } else {
            return Ok(());
        };
        Err(CommandError::Text(text.into()))
    }

    fn shape(&self) -> Option<Shape> {
        let (Centre::At(centre) | Centre::Member(centre)) = self.centre else { return None };
        Some(Shape { centre, extent: self.extent?, unit: self.unit })
    }

    fn count_max(&self) -> usize {
        self.count.unwrap_or(usize::MAX)
    }

    /// The members that a count keeps are the nearest ones, unless asked for otherwise.
    fn effective_order(&self) -> Option<Order> {
        self.order.or((self.count.is_some() && !self.takes_any).then_some(Order::Nearest))
    }
}

fn centre_of(set: Option<&Zset>, member: &[u8]) -> Result<Centre, CommandError> {
    let Some(set) = set else { return Ok(Centre::Absent) };
    let score = set.score(member).ok_or(CommandError::text("ERR could not decode requested zset member"))?;
    Ok(Centre::Member(Place::from_score(score)))
}

fn parse_count(text: &[u8]) -> Result<usize, CommandError> {
    let count = integer(text)?;
    if count <= 0 {
        return Err(CommandError::text("ERR COUNT must be > 0"));
    }
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}
