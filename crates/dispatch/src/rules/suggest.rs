//! Names the word that was probably meant, in error messages.

use acteon_state::config::closest;

/// `" (did you mean `x`?)"`, or nothing when no allowed word is close.
pub(crate) fn suggestion(written: &str, allowed: &[&str]) -> String {
    match closest(written, allowed.iter().copied()) {
        Some(word) => format!(" (did you mean `{word}`?)"),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::suggestion;

    #[test]
    fn close_words_are_suggested_and_distant_ones_are_not() {
        assert_eq!(suggestion("conditon", &["name", "condition"]), " (did you mean `condition`?)");
        assert_eq!(suggestion("zzz", &["name", "condition"]), "");
    }
}
