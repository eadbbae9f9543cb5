//! The README's "where is" table has a line for each crate.

use std::fs;

use crate::workspace::{Package, Workspace};

const README: &str = "README.md";

pub(super) fn check(workspace: &Workspace) -> Vec<String> {
    match fs::read_to_string(workspace.root.join(README)) {
        Ok(readme) => missing(&readme, &workspace.packages),
        Err(error) => vec![format!("{README}: {error}")],
    }
}

fn missing(readme: &str, packages: &[Package]) -> Vec<String> {
    let listed: Vec<&str> = readme.lines().filter_map(listed_folder).collect();
    packages
        .iter()
        .filter(|package| !is_listed(&package.folder, &listed))
        .map(|package| format!("{README}: the \"where is\" table has no line that begins with `{}`", package.folder))
        .collect()
}

/// The folder in backticks in the first cell of a table's line.
fn listed_folder(line: &str) -> Option<&str> {
    let (cell, _) = line.trim_start().strip_prefix('|')?.split_once('|')?;
    let (_, rest) = cell.split_once('`')?;
    let (folder, _) = rest.split_once('`')?;
    Some(folder.trim_end_matches('/'))
}

/// Crates need a line of their own; what lies elsewhere may be covered by its parent's, such as all of `examples`.
fn is_listed(folder: &str, listed: &[&str]) -> bool {
    let parent = folder.split('/').next().filter(|_| !folder.starts_with("crates/"));
    listed.iter().any(|line| *line == folder || Some(*line) == parent)
}

#[cfg(test)]
mod tests {
    use super::missing;
    use crate::workspace::Package;

    const README: &str = "\
| Folder | Holds |
|---|---|
| [`crates/engine/`](crates/engine) | the database |
| `examples` | one thing each |

`crates/state` is mentioned outside of the table";

    fn missing_of(folder: &str) -> usize {
        let package = Package { folder: folder.to_owned(), ..Package::default() };
        missing(README, &[package]).len()
    }

    #[test]
    fn crates_need_a_line_of_their_own() {
        assert_eq!(missing_of("crates/engine"), 0);
        assert_eq!(missing_of("crates/state"), 1);
        assert_eq!(missing_of("crates/engine-server"), 1);
    }

    #[test]
    fn examples_are_covered_by_their_folder() {
        assert_eq!(missing_of("examples/embed"), 0);
        assert_eq!(missing_of("xtask"), 1);
    }
}
