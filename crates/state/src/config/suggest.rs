//! Finds the word that was probably meant, for error messages.

/// Longer words are not compared: the cost is quadratic, and nobody misspells a key of this length by one letter.
const WRITTEN_CHARS_MAX: usize = 64;

/// The closest of the allowed words, if one is close enough to be what was meant.
#[must_use]
pub fn closest<'a>(written: &str, allowed: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let length = written.chars().count();
    if length > WRITTEN_CHARS_MAX {
        return None;
    }
    // A third of the letters may be wrong: `tabel_name` finds `table_name`, while `user` finds nothing.
    let distance_max = (length / 3).max(1);
    let distances = allowed.into_iter().map(|word| (edit_distance(written, word), word));
    distances.filter(|(distance, _)| *distance <= distance_max).min().map(|(_, word)| word)
}

/// Words for a message: `a`, `b` and `c`, each in backquotes.
pub(crate) fn listed<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    match words.split_last() {
        None => "none".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}

/// Optimal string alignment: insertions, deletions, replacements, and swaps of neighbours each count one.
fn edit_distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for i in 0..left.len() {
        let mut row = vec![i + 1];
        for j in 0..right.len() {
            let replaced = last[j] + usize::from(left[i] != right[j]);
            let mut best = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i] == right[j - 1] && left[i - 1] == right[j] {
                best = best.min(before_last[j - 1] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{closest, edit_distance, listed};

    #[test]
    fn distance_counts_single_edits_and_swaps() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("ulr", "url"), 1);
        assert_eq!(edit_distance("same", "same"), 0);
    }

    #[test]
    fn close_words_are_found_and_distant_ones_are_not() {
        assert_eq!(closest("prefx", ["url", "prefix"]), Some("prefix"));
        assert_eq!(closest("colour", ["url", "prefix"]), None);
        assert_eq!(closest(&"x".repeat(1_000), ["url"]), None);
    }

    #[test]
    fn lists_read_like_a_sentence() {
        assert_eq!(listed([]), "none");
        assert_eq!(listed(["a"]), "`a`");
        assert_eq!(listed(["a", "b", "c"]), "`a`, `b` and `c`");
    }
}
