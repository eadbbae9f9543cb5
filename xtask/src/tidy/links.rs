//! Relative links in Markdown files lead somewhere.

use std::path::Path;

use super::files::TextFile;

pub(super) fn check(root: &Path, files: &[TextFile]) -> Vec<String> {
    let mut problems = Vec::new();
    for file in files.iter().filter(|file| file.path.extension().is_some_and(|it| it == "md")) {
        let folder = root.join(file.path.parent().unwrap_or(Path::new("")));
        for (number, target) in links(&file.text) {
            let path = target.split(['#', '?']).next().unwrap_or(target);
            if !path.is_empty() && !folder.join(path).exists() {
                problems.push(format!("{}:{number}: the link to {target} leads nowhere", file.path.display()));
            }
        }
    }
    problems
}

/// The targets of inline links within the repository, with their line numbers. Code is not searched.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut in_fence = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_fence = !in_fence;
        } else if !in_fence {
            found.extend(line_links(line).map(|target| (index + 1, target)));
        }
    }
    found
}

fn line_links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
        .map(|target| target.trim_start_matches('<').trim_end_matches('>'))
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{check, links};
    use crate::tidy::files::TextFile;

    #[test]
    fn only_links_within_the_repository_are_found() {
        let text =
            "see [a](a.md#part), [b](https://b.example/x) and [c](../c \"title\")\n```\n[d](d.md)\n```\n[e](#here)";
        assert_eq!(links(text), [(1, "a.md#part"), (1, "../c"), (5, "#here")]);
    }

    #[test]
    fn a_link_that_leads_nowhere_is_named_with_its_line() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("docs")).unwrap();
        fs::write(root.path().join("README.md"), "").unwrap();
        let file =
            TextFile { path: "docs/a.md".into(), text: "[up](../README.md#x)\n[gone](gone.md) [same](#x)".to_owned() };
        assert_eq!(check(root.path(), &[file]), ["docs/a.md:2: the link to gone.md leads nowhere"]);
    }
}
