//! The text files of the repository, and how long they may be.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Failure;

/// A file written by hand.
pub(super) struct TextFile {
    /// From the root of the repository.
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// Longer files hold more than one idea; most have 90 to 400 lines.
const LINES_MAX: usize = 900;

const EXTENSIONS: [&str; 8] = ["rs", "lua", "sql", "sh", "md", "toml", "yaml", "yml"];

/// Loads all files with the extensions above, except those in hidden folders and in cargo's output.
pub(super) fn load(root: &Path) -> Result<Vec<TextFile>, Failure> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let path = entry.path();
            let name = entry.file_name();
            if entry.file_type()?.is_dir() {
                if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                    folders.push(path);
                }
            } else if is_text(&path) {
                let text =
                    fs::read_to_string(&path).map_err(|error| Failure(format!("{}: {error}", path.display())))?;
                let path = path.strip_prefix(root).unwrap_or(&path).to_owned();
                files.push(TextFile { path, text });
            }
        }
    }
    files.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(files)
}

pub(super) fn check_lengths(files: &[TextFile]) -> Vec<String> {
    files
        .iter()
        .map(|file| (file, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{}: {lines} lines, at most {LINES_MAX}: split it", file.path.display()))
        .collect()
}

fn is_text(path: &Path) -> bool {
    path.extension().and_then(|extension| extension.to_str()).is_some_and(|extension| EXTENSIONS.contains(&extension))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{LINES_MAX, TextFile, check_lengths, load};

    #[test]
    fn a_file_above_the_limit_is_named() {
        let file = |name: &str, lines: usize| TextFile { path: name.into(), text: "x\n".repeat(lines) };
        let problems = check_lengths(&[file("fits.rs", LINES_MAX), file("long.rs", LINES_MAX + 1)]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("long.rs: 901 lines"), "{problems:?}");
    }

    #[test]
    fn output_and_hidden_folders_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["src", "target", ".git"] {
            fs::create_dir(root.path().join(folder)).unwrap();
            fs::write(root.path().join(folder).join("a.rs"), "").unwrap();
        }
        let files = load(root.path()).unwrap();
        let paths: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["src/a.rs"]);
    }
}
