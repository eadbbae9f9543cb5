//! The arguments of a request, without copies of them.
//!
//! # Guarantees
//! Memory that an unusually large request needed is given back with the next one; what ordinary requests need is kept.
//!
//! # Failure
//! Asking for an argument that is not there is a bug of the caller, and panics as a slice does.
//!
//! # How it works
//! An argument is a range: of the read buffer, which the caller holds and names at each access, or of a buffer in here
//! when escapes had to be resolved. Ranges rather than slices, because the read buffer grows while a request arrives.

/// Arguments for which room is kept from one request to the next, and reserved on the word of a header: 16 KiB of ranges.
pub(crate) const ARGS_KEPT_MAX: usize = 1_024;

/// Bytes of unquoted inline arguments for which room is kept.
const UNQUOTED_KEPT_BYTES_MAX: usize = 4_096;

/// The arguments of one request: ranges of the input, which every access names again.
///
/// Inline arguments in quotes have no range there, since their escapes are resolved: then all arguments of the request are
/// kept here. Reuse one value for many requests, to reuse its memory.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    spans: Vec<Span>,
    unquoted: Vec<u8>,
    is_unquoted: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Arguments {
    /// Number of arguments, the command's name included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is none: an empty line.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The argument at `index`, where 0 is the command's name. `input` is the one of the call that read the request.
    ///
    /// # Panics
    /// As a slice does, when there is no such argument or `input` is shorter than the request.
    #[must_use]
    pub fn get<'a>(&'a self, input: &'a [u8], index: usize) -> &'a [u8] {
        self.spans[index].of(self.source(input))
    }

    /// All arguments in order. `input` is the one of the call that read the request.
    ///
    /// # Panics
    /// The iterator does, when `input` is shorter than the request.
    pub fn iter<'a>(
        &'a self,
        input: &'a [u8],
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + Clone {
        let source = self.source(input);
        self.spans.iter().map(move |span| span.of(source))
    }

    /// Forgets the arguments, and memory beyond what ordinary requests need.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.spans.shrink_to(ARGS_KEPT_MAX);
        if self.is_unquoted {
            self.unquoted.clear();
            self.unquoted.shrink_to(UNQUOTED_KEPT_BYTES_MAX);
            self.is_unquoted = false;
        }
    }

    /// Makes room for `count` arguments, as far as a client's word is good for it.
    pub(crate) fn reserve(&mut self, count: usize) {
        self.spans.reserve(count.min(ARGS_KEPT_MAX));
    }

    /// Adds a range of the input.
    pub(crate) fn push(&mut self, span: Span) {
        self.spans.push(span);
    }

    /// Adds what `write` appends. All arguments of a request are added this way or none.
    pub(crate) fn push_unquoted<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        self.is_unquoted = true;
        let start = self.unquoted.len();
        write(&mut self.unquoted)?;
        self.spans.push(Span { start, len: self.unquoted.len() - start });
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.spans.capacity()
    }

    fn source<'a>(&'a self, input: &'a [u8]) -> &'a [u8] {
        if self.is_unquoted { &self.unquoted } else { input }
    }
}

impl Span {
    #[inline]
    pub(crate) fn of(self, source: &[u8]) -> &[u8] {
        &source[self.start..self.start + self.len]
    }
}
