//! Where the entries of a segment lie: short strings in cells of chunks, everything else boxed.
//!
//! # Guarantees
//! What is there lies without holes: what is removed is replaced by the last of its size, so that no order of writes leaves memory that is neither
//! used nor given back. One step takes or gives back one chunk at most, of 16 KiB at most.
//!
//! # Failure
//! None. Where there are more cells than a location can name (8 GiB of short strings in one segment), further strings are boxed.
//!
//! # How it works
//! A string with its key and header is a few dozen bytes, of which an allocator would round away a fifth, and a table would name it by a
//! pointer and a length. Here it lies in a cell whose size is a multiple of eight bytes (of 16 or 32 for longer ones), and four bytes name it:
//! ```text
//!    31 30                    12 11             0
//!  ┌───┬────────────────────────┬────────────────┐
//!  │ 0 │ chunk                  │ place / 8      │    a cell
//!  ├───┼────────────────────────┴────────────────┤
//!  │ 1 │ number                                  │    a box
//!  └───┴─────────────────────────────────────────┘
//! ```
//! A chunk has cells of one size, and the chunks of a size are filled one after the other. Each is a sixteenth of those before it, so that of what is
//! allocated one part in thirty-two is not used on average, and 256 bytes at least.

use std::mem;

use super::Location;
use crate::entry::{CELL_BYTES_MAX, Entry, EntryMut, EntryRef, StrEntry, StrMut, StrParts, StrRef, cell_bytes};

/// Largest chunk, which is cleared within a microsecond or two: of larger ones, more is not used at the end of each segment.
const CHUNK_BYTES_MAX: usize = 16 << 10;
/// Smallest chunk.
const CHUNK_BYTES_MIN: usize = 256;
/// A chunk is as large as this part of those before it with cells of the same size.
const CHUNK_PART: usize = 16;

const BOXED_FLAG: u32 = 1 << 31;
const OFFSET_BITS: u32 = 12;
/// Cells begin at multiples of this.
const OFFSET_STEP: usize = 8;
const CHUNKS_MAX: usize = 1 << (31 - OFFSET_BITS);
/// The highest number is that of no entry.
const BOXED_MAX: usize = (BOXED_FLAG - 1) as usize;

/// A full list grows by one place in so many.
const LIST_GROWTH_DIVISOR: usize = 8;
const LIST_GROWTH_MIN: usize = 4;

const _: () = assert!(CHUNK_BYTES_MAX <= OFFSET_STEP << OFFSET_BITS, "every cell of a chunk can be named");
const _: () = assert!(CELL_BYTES_MAX <= CHUNK_BYTES_MAX, "every cell fits into a chunk");

impl Location {
    fn of_cell(chunk: u32, offset: usize) -> Self {
        // Fits: offsets are below the size of a chunk.
        Self(chunk << OFFSET_BITS | (offset / OFFSET_STEP) as u32)
    }

    fn of_boxed(number: usize) -> Self {
        assert!(number < BOXED_MAX, "a segment has fewer than 2^31 boxed entries");
        // Fits, as was just seen.
        Self(number as u32 | BOXED_FLAG)
    }

    #[inline]
    pub(super) fn is_boxed(self) -> bool {
        self.boxed().is_some()
    }

    #[inline]
    fn boxed(self) -> Option<usize> {
        (self.0 & BOXED_FLAG != 0).then_some((self.0 & !BOXED_FLAG) as usize)
    }

    #[inline]
    fn chunk(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize
    }

    #[inline]
    fn offset(self) -> usize {
        (self.0 & ((1 << OFFSET_BITS) - 1)) as usize * OFFSET_STEP
    }
}

/// An entry that lies elsewhere now than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) from: Location,
    pub(super) to: Location,
}

/// All entries.
#[derive(Default)]
pub(crate) struct Cells {
    /// By number; those that were given back are empty.
    chunks: Vec<Chunk>,
    /// What only writes need, and boxed entries.
    rest: Option<Box<Rest>>,
}

struct Chunk {
    bytes: Box<[u8]>,
    cell_bytes: usize,
}

#[derive(Default)]
struct Rest {
    /// In ascending order of the size of their cells.
    pools: Vec<Pool>,
    /// Numbers of chunks that were given back. Has room for all, so that giving back takes no memory.
    vacant: Vec<u32>,
    boxed: Vec<Entry>,
    /// What the lists of chunks in pools take.
    list_bytes: u64,
}

/// All chunks with cells of one size.
struct Pool {
    cell_bytes: usize,
    /// In the order in which they are filled; at most one is empty.
    chunks: Vec<u32>,
    /// The first so many are full.
    full: usize,
    /// Cells that are used in the one after these.
    used: usize,
    /// What its chunks take.
    bytes: usize,
}

impl Cells {
    #[inline]
    pub(super) fn get(&self, location: Location) -> Option<EntryRef<'_>> {
        match location.boxed() {
            None => {
                let chunk = self.chunks.get(location.chunk())?;
                let offset = location.offset();
                chunk.bytes.get(offset..offset + chunk.cell_bytes).map(|cell| EntryRef::Str(StrRef::in_cell(cell)))
            }
            Some(number) => self.rest.as_ref()?.boxed.get(number).map(Entry::view),
        }
    }

    #[inline]
    pub(super) fn get_mut(&mut self, location: Location) -> Option<EntryMut<'_>> {
        match location.boxed() {
            None => {
                let chunk = self.chunks.get_mut(location.chunk())?;
                let offset = location.offset();
                chunk.bytes.get_mut(offset..offset + chunk.cell_bytes).map(|cell| EntryMut::Str(StrMut::in_cell(cell)))
            }
            Some(number) => self.rest.as_mut()?.boxed.get_mut(number).map(Entry::view_mut),
        }
    }

    /// Puts a string where strings of its length lie.
    pub(super) fn add_str(&mut self, string: &StrParts<'_>) -> Location {
        match self.allocate(string.len()) {
            Some(location) => {
                string.write_to(self.cell_mut(location));
                location
            }
            None => self.push(Entry::Str(StrEntry::of(string))),
        }
    }

    /// Puts an entry where entries like it lie.
    pub(super) fn add(&mut self, entry: Entry) -> Location {
        if let Entry::Str(string) = &entry
            && let Some(location) = self.allocate(string.len())
        {
            string.copy_to(self.cell_mut(location));
            return location;
        }
        self.push(entry)
    }

    /// Writes a string over the one at a location, if it fits into the same cell. Returns whether it does.
    pub(super) fn rewrite(&mut self, location: Location, string: &StrParts<'_>) -> bool {
        if location.boxed().is_some() || string.len() > CELL_BYTES_MAX {
            return false;
        }
        let cell = self.cell_mut(location);
        let fits = cell.len() == cell_bytes(string.len());
        if fits {
            string.write_to(cell);
        }
        fits
    }

    /// Puts a string that is too long for a cell in the place of one in a box. Gives it back if one of both is not so.
    pub(super) fn replace_long_str(&mut self, location: Location, string: StrEntry) -> Result<(), StrEntry> {
        match location.boxed() {
            Some(number) if string.len() > CELL_BYTES_MAX => {
                self.rest.as_mut().expect(HAS_REST).boxed[number] = Entry::Str(string);
                Ok(())
            }
            _ => Err(string),
        }
    }

    /// Takes out what lies at a location: returns it if it was boxed, and which entry lies there now, if one does.
    pub(super) fn remove(&mut self, location: Location) -> (Option<Entry>, Option<Moved>) {
        match location.boxed() {
            None => (None, self.free(location)),
            Some(number) => {
                let boxed = &mut self.rest.as_mut().expect(HAS_REST).boxed;
                let entry = boxed.swap_remove(number);
                let moved = (number < boxed.len())
                    .then(|| Moved { from: Location::of_boxed(boxed.len()), to: Location::of_boxed(number) });
                if boxed.len() < boxed.capacity() / 2 {
                    boxed.shrink_to(boxed.len() + LIST_GROWTH_MIN + boxed.len() / LIST_GROWTH_DIVISOR);
                }
                (Some(entry), moved)
            }
        }
    }

    /// What it takes beside the entries: lists, and no cells. Cells that are not used do not count, so that each removal shows.
    #[inline]
    pub(super) fn overhead_bytes(&self) -> u64 {
        let Some(rest) = &self.rest else { return 0 };
        let lists = list_bytes(&self.chunks) + list_bytes(&rest.pools) + list_bytes(&rest.vacant);
        (lists + list_bytes(&rest.boxed) + size_of::<Rest>()) as u64 + rest.list_bytes
    }

    /// By how much that may grow for one more string, which is so long with its header.
    pub(super) fn overhead_growth_bytes(&self, len: usize) -> u64 {
        let Some(rest) = &self.rest else { return FIRST_BYTES };
        if len > CELL_BYTES_MAX {
            return growth_bytes(&rest.boxed);
        }
        let size = cell_bytes(len);
        match rest.pools.binary_search_by_key(&size, |pool| pool.cell_bytes) {
            Ok(at) if rest.pools[at].full < rest.pools[at].chunks.len() => 0,
            Ok(at) => chunk_growth_bytes(&self.chunks) + growth_bytes(&rest.pools[at].chunks),
            Err(_) => chunk_growth_bytes(&self.chunks) + growth_bytes(&rest.pools) + FIRST_LIST_BYTES,
        }
    }

    /// The chunk and the cell for a string of this length; `None` if it has to be boxed.
    fn allocate(&mut self, len: usize) -> Option<Location> {
        if len > CELL_BYTES_MAX {
            return None;
        }
        let size = cell_bytes(len);
        let rest = self.rest.get_or_insert_default();
        let at = rest.pools.binary_search_by_key(&size, |pool| pool.cell_bytes);
        let at = at.unwrap_or_else(|at| {
            reserve(&mut rest.pools);
            rest.pools.insert(at, Pool { cell_bytes: size, chunks: Vec::new(), full: 0, used: 0, bytes: 0 });
            at
        });
        let pool = &mut rest.pools[at];
        if pool.full == pool.chunks.len() {
            add_chunk(&mut self.chunks, rest, at)?;
        }
        let pool = &mut rest.pools[at];
        let number = pool.chunks[pool.full];
        let location = Location::of_cell(number, pool.used * size);
        pool.used += 1;
        if pool.used == self.chunks[number as usize].cells() {
            (pool.full, pool.used) = (pool.full + 1, 0);
        }
        Some(location)
    }

    /// Fills the hole with the last cell of the same size.
    fn free(&mut self, hole: Location) -> Option<Moved> {
        let size = self.chunks[hole.chunk()].cell_bytes;
        let rest = self.rest.as_mut().expect(HAS_REST);
        let at = rest.pools.binary_search_by_key(&size, |pool| pool.cell_bytes).expect(HAS_REST);
        let pool = &mut rest.pools[at];
        if pool.used == 0 {
            pool.full -= 1;
            pool.used = self.chunks[pool.chunks[pool.full] as usize].cells();
        }
        pool.used -= 1;
        let last = Location::of_cell(pool.chunks[pool.full], pool.used * size);
        if last != hole {
            copy_cell(&mut self.chunks, last, hole, size);
        }
        self.give_back(at);
        (last != hole).then_some(Moved { from: last, to: hole })
    }

    /// Gives back chunks that are not used. One stays while it may soon be used again.
    fn give_back(&mut self, at: usize) {
        let rest = self.rest.as_mut().expect(HAS_REST);
        let pool = &mut rest.pools[at];
        let cells = self.chunks[pool.chunks[pool.full] as usize].cells();
        let kept = match pool.used {
            0 if pool.full == 0 => 0,
            used if used <= cells / 2 => pool.full + 1,
            _ => return,
        };
        while pool.chunks.len() > kept {
            let Some(number) = pool.chunks.pop() else { break };
            pool.bytes -= mem::take(&mut self.chunks[number as usize].bytes).len();
            rest.vacant.push(number);
        }
        if rest.vacant.len() == self.chunks.len() {
            (self.chunks, rest.vacant) = (Vec::new(), Vec::new());
            (rest.pools, rest.list_bytes) = (Vec::new(), 0);
        }
    }

    fn cell_mut(&mut self, location: Location) -> &mut [u8] {
        let chunk = &mut self.chunks[location.chunk()];
        &mut chunk.bytes[location.offset()..][..chunk.cell_bytes]
    }

    fn push(&mut self, entry: Entry) -> Location {
        let boxed = &mut self.rest.get_or_insert_default().boxed;
        reserve(boxed);
        boxed.push(entry);
        Location::of_boxed(boxed.len() - 1)
    }
}

impl Chunk {
    fn cells(&self) -> usize {
        self.bytes.len() / self.cell_bytes
    }
}

/// Adds a chunk to a pool; `None` if no number is left for it.
fn add_chunk(chunks: &mut Vec<Chunk>, rest: &mut Rest, at: usize) -> Option<()> {
    let pool = &mut rest.pools[at];
    let bytes = chunk_bytes(pool.bytes, pool.cell_bytes);
    let chunk = Chunk { bytes: vec![0; bytes].into_boxed_slice(), cell_bytes: pool.cell_bytes };
    let number = match rest.vacant.pop() {
        Some(number) => {
            chunks[number as usize] = chunk;
            number
        }
        None if chunks.len() < CHUNKS_MAX => {
            reserve(chunks);
            chunks.push(chunk);
            rest.vacant.reserve_exact(chunks.capacity());
            // Fits: it is below the bound.
            chunks.len() as u32 - 1
        }
        None => return None,
    };
    let lists_before = list_bytes(&pool.chunks);
    reserve(&mut pool.chunks);
    pool.chunks.push(number);
    rest.list_bytes += (list_bytes(&pool.chunks) - lists_before) as u64;
    pool.bytes += bytes;
    Some(())
}

/// The size of the chunk that follows others of so many bytes: one that allocators have, less what its last cell would not fit into.
fn chunk_bytes(bytes_before: usize, cell_bytes: usize) -> usize {
    let wanted = (bytes_before / CHUNK_PART).clamp(CHUNK_BYTES_MIN, CHUNK_BYTES_MAX);
    // Allocators have four sizes to a doubling.
    let rounded = wanted.next_multiple_of(1 << (wanted.ilog2() - 2));
    (rounded / cell_bytes).max(1) * cell_bytes
}

fn copy_cell(chunks: &mut [Chunk], from: Location, to: Location, size: usize) {
    if from.chunk() == to.chunk() {
        chunks[to.chunk()].bytes.copy_within(from.offset()..from.offset() + size, to.offset());
        return;
    }
    let [from_chunk, to_chunk] = chunks.get_disjoint_mut([from.chunk(), to.chunk()]).expect("both are there");
    to_chunk.bytes[to.offset()..][..size].copy_from_slice(&from_chunk.bytes[from.offset()..][..size]);
}

/// Makes room for one more, with less to spare than a list that doubles.
fn reserve<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(LIST_GROWTH_MIN + list.len() / LIST_GROWTH_DIVISOR);
    }
}

fn list_bytes<T>(list: &Vec<T>) -> usize {
    list.capacity() * size_of::<T>()
}

fn growth_bytes<T>(list: &Vec<T>) -> u64 {
    let places = if list.len() == list.capacity() { LIST_GROWTH_MIN + list.len() / LIST_GROWTH_DIVISOR } else { 0 };
    (places * size_of::<T>()) as u64
}

/// The list of chunks grows together with that of their numbers.
fn chunk_growth_bytes(chunks: &Vec<Chunk>) -> u64 {
    growth_bytes(chunks) / size_of::<Chunk>() as u64 * (size_of::<Chunk>() + size_of::<u32>()) as u64
}

const FIRST_LIST_BYTES: u64 = (LIST_GROWTH_MIN * size_of::<u32>()) as u64;
/// What the first entry takes.
const FIRST_BYTES: u64 =
    (size_of::<Rest>() + LIST_GROWTH_MIN * (size_of::<Chunk>() + size_of::<Pool>() + 2 * size_of::<u32>())) as u64;

const HAS_REST: &str = "what lies in a cell has a pool";

#[cfg(test)]
mod tests;
