//! `cargo xtask tidy`: the rules of this repository that the compiler does not know.

mod borders;
mod files;
mod links;
mod map;

use crate::Failure;
use crate::workspace::Workspace;

/// Checks everything and prints each problem. `false` means that there were some.
pub(crate) fn run(workspace: &Workspace) -> Result<bool, Failure> {
    let files = files::load(&workspace.root)?;
    let mut problems = borders::check(&workspace.packages);
    problems.extend(map::check(workspace));
    problems.extend(files::check_lengths(&files));
    problems.extend(links::check(&workspace.root, &files));
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => println!("tidy: {} packages, {} files", workspace.packages.len(), files.len()),
        count => eprintln!("tidy: problems found: {count}"),
    }
    Ok(problems.is_empty())
}
