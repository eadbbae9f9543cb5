//! Tables of options on the pages of backends: made from the config type, its defaults and its comments.

use std::fs;
use std::path::{Path, PathBuf};

use acteon_state::config::{ByteSize, HumanDuration};

const BEGIN: &str = "<!-- generated: options -->\n";
const END: &str = "<!-- end -->";
/// Set to rewrite the table instead of comparing it.
const WRITE: &str = "ACTEON_WRITE_DOCS";

/// A page on a backend, and the type of its options.
pub(crate) struct Page {
    /// Below `docs/backends`.
    pub(crate) file: &'static str,
    /// The source of the type, whose comments explain the options.
    pub(crate) source: &'static str,
    /// Options that stand directly below `[state]`.
    pub(crate) above: &'static [&'static str],
    /// The default of the type as `{:#?}` shows it.
    pub(crate) default: String,
}

impl Page {
    pub(crate) fn path(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/backends").join(self.file)
    }

    pub(crate) fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// The options of the section with their defaults as one writes them, in the order of the type.
    pub(crate) fn options(&self) -> Vec<(String, Option<String>)> {
        let fields =
            self.default.lines().filter_map(|line| line.strip_prefix("    ")?.strip_suffix(',')?.split_once(": "));
        fields
            .filter(|(name, _)| !self.above.contains(name))
            .map(|(name, value)| (name.to_owned(), default(name, value)))
            .collect()
    }

    /// The options with their defaults, as lines of the section.
    pub(crate) fn defaults(&self) -> String {
        let options = self.options();
        options.iter().filter_map(|(name, default)| Some(format!("{name} = {}\n", default.as_ref()?))).collect()
    }

    /// Compares the table of the page, or writes it.
    pub(crate) fn check_options(&self) {
        let text = self.text();
        let (before, rest) = text.split_once(BEGIN).expect("the page marks where the table begins");
        let (current, after) = rest.split_once(END).expect("the page marks where the table ends");
        let table = self.table();
        if std::env::var_os(WRITE).is_some() {
            fs::write(self.path(), format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
            return;
        }
        assert_eq!(current, table, "docs/backends/{} is out of date: run this test with {WRITE}=1", self.file);
    }

    /// The rows of the table that begins with this head, cell by cell.
    pub(crate) fn rows_of(&self, head: &str) -> Vec<Vec<String>> {
        let text = self.text();
        let (_, below) = text.split_once(head).expect(head);
        let rows = below.lines().skip(2).take_while(|line| line.starts_with("| "));
        rows.map(|row| row.split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
    }

    /// What stands between ```` ```language ```` and the end of the block.
    pub(crate) fn blocks(&self, language: &str) -> Vec<String> {
        let (text, begin) = (self.text(), format!("```{language}\n"));
        let blocks = text.split(&begin).skip(1);
        blocks.map(|rest| rest.split("```").next().unwrap_or(rest).to_owned()).collect()
    }

    fn table(&self) -> String {
        let mut table = "| option | default | meaning |\n|---|---|---|\n".to_owned();
        for (name, default) in self.options() {
            let default = default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"));
            table.push_str(&format!("| `{name}` | {default} | {} |\n", self.meaning(&name)));
        }
        table
    }

    /// What the comment above the field says.
    fn meaning(&self, name: &str) -> String {
        let (before, _) = self.source.split_once(&format!("\n    pub {name}: ")).expect(name);
        let comment: Vec<&str> = before.lines().rev().map_while(|line| line.trim().strip_prefix("///")).collect();
        let words = comment.iter().rev().map(|line| line.trim()).filter(|line| !line.is_empty());
        words.collect::<Vec<_>>().join(" ")
    }
}

/// From the form of `Debug` to that of a configuration file.
fn default(name: &str, value: &str) -> Option<String> {
    if let Ok(time) = value.parse::<HumanDuration>() {
        return Some(format!("\"{time}\""));
    }
    match value {
        "None" => None,
        bytes if name.contains("_bytes_") => Some(format!("\"{}\"", ByteSize(bytes.parse().unwrap()))),
        variant if variant.starts_with(char::is_uppercase) => Some(format!("\"{}\"", variant.to_lowercase())),
        other => Some(other.to_owned()),
    }
}

/// What stands between backticks.
pub(crate) fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// The variant of `ErrorKind` that a cell names: `OutOfMemory` for `out_of_memory`.
pub(crate) fn variant(cell: &str) -> String {
    let capitalised = |word: &str| word[..1].to_uppercase() + &word[1..];
    quoted(cell).flat_map(|kind| kind.split('_')).map(capitalised).collect()
}

/// All files of a driver below `crates/{driver}/src`, and what the facade says before it.
pub(crate) fn sources(driver: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("..").join(driver).join("src")];
    let mut text = fs::read_to_string(root.join("src/drivers/mod.rs")).unwrap();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => text.push_str(&fs::read_to_string(path).unwrap()),
            }
        }
    }
    text
}
