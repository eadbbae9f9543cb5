//! Finds the word that was probably meant, for error messages.

/// `" (did you mean `x`?)"`, or nothing when no allowed word is close.
pub(crate) fn suggestion(written: &str, allowed: &[&str]) -> String {
    match closest(written, allowed) {
        Some(word) => format!(" (did you mean `{word}`?)"),
        None => String::new(),
    }
}

fn closest<'a>(written: &str, allowed: &[&'a str]) -> Option<&'a str> {
    // Quadratic in the length, so long input is not worth comparing.
    const WRITTEN_BYTES_MAX: usize = 64;
    if written.len() > WRITTEN_BYTES_MAX {
        return None;
    }
    // A third of the letters may be wrong: `tennant` finds `tenant`, while `user` finds nothing.
    let distance_max = (written.chars().count() / 3).max(1);
    allowed
        .iter()
        .map(|word| (edit_distance(written, word), *word))
        .filter(|(distance, _)| *distance <= distance_max)
        .min()
        .map(|(_, word)| word)
}

/// Levenshtein distance, one row at a time.
fn edit_distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, left_char) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right_char) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(left_char != *right_char);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::{edit_distance, suggestion};

    #[test]
    fn close_words_are_suggested_and_distant_ones_are_not() {
        assert_eq!(suggestion("conditon", &["name", "condition"]), " (did you mean `condition`?)");
        assert_eq!(suggestion("zzz", &["name", "condition"]), "");
    }

    #[test]
    fn distance_counts_single_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("same", "same"), 0);
    }
}
