//! What `cargo metadata` says about the packages of this workspace.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::Failure;

/// The packages of the workspace, sorted by folder.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// Where cargo puts what it builds.
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One package of the workspace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Where it lives, from the root and with forward slashes: `crates/engine`.
    pub(crate) folder: String,
    pub(crate) features: Vec<String>,
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as the manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) package: String,
    /// Needed by tests, examples and benchmarks only.
    pub(crate) is_dev: bool,
}

impl Workspace {
    /// Asks cargo. Does not touch the network.
    pub(crate) fn load() -> Result<Self, Failure> {
        let output = cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .current_dir(manifest_folder()?)
            .output()?;
        if !output.status.success() {
            let reason = String::from_utf8_lossy(&output.stderr);
            return Err(Failure(format!("cargo metadata failed: {}", reason.trim())));
        }
        Self::parse(&serde_json::from_slice(&output.stdout)?)
    }

    fn parse(metadata: &Value) -> Result<Self, Failure> {
        let root = PathBuf::from(text(&metadata["workspace_root"])?);
        let mut packages = items(&metadata["packages"])
            .map(|package| Package::parse(package, &root))
            .collect::<Result<Vec<_>, _>>()?;
        packages.sort_by(|one, other| one.folder.cmp(&other.folder));
        Ok(Self { root, target: PathBuf::from(text(&metadata["target_directory"])?), packages })
    }
}

impl Package {
    /// The name without the prefix that all crates share.
    pub(crate) fn short_name(&self) -> &str {
        self.name.strip_prefix("acteon-").unwrap_or(&self.name)
    }

    fn parse(package: &Value, root: &Path) -> Result<Self, Failure> {
        let manifest = Path::new(text(&package["manifest_path"])?);
        let folder = manifest.parent().and_then(|folder| folder.strip_prefix(root).ok());
        Ok(Self {
            name: text(&package["name"])?.to_owned(),
            folder: folder.unwrap_or(manifest).to_string_lossy().into_owned(),
            features: package["features"]
                .as_object()
                .map(|features| features.keys().cloned().collect())
                .unwrap_or_default(),
            dependencies: items(&package["dependencies"]).map(Dependency::parse).collect::<Result<_, _>>()?,
        })
    }
}

impl Dependency {
    fn parse(dependency: &Value) -> Result<Self, Failure> {
        Ok(Self { package: text(&dependency["name"])?.to_owned(), is_dev: dependency["kind"] == "dev" })
    }
}

/// The cargo that runs us, so that a toolchain chosen with `cargo +name xtask` stays chosen.
///
/// It does not learn that it was started by a package: build scripts that look at the variables of their own package (that of `ring`) would be run again
/// whenever somebody has built without us in between, and all that depends on them would be built again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    env::vars_os().filter(|(name, _)| is_of_a_package(name)).for_each(|(name, _)| _ = command.env_remove(name));
    command
}

/// Whether cargo sets a variable to what it runs or builds, by its package.
fn is_of_a_package(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    name.starts_with(b"CARGO_PKG_") || name.starts_with(b"CARGO_MANIFEST_")
}

/// Our own folder, which is inside the workspace wherever the task was called from.
fn manifest_folder() -> Result<PathBuf, Failure> {
    match env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Ok(env::current_dir()?),
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Result<&str, Failure> {
    value.as_str().ok_or_else(|| Failure(format!("cargo metadata has {value} where a text belongs")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Dependency, Workspace, is_of_a_package};

    #[test]
    fn packages_are_read_with_folder_features_and_dependencies() {
        let workspace = Workspace::parse(&json!({
            "workspace_root": "/w", "target_directory": "/w/target",
            "packages": [{
                "name": "acteon-state",
                "manifest_path": "/w/crates/state/Cargo.toml",
                "features": {"redis": []},
                "dependencies": [{"name": "serde", "kind": null}, {"name": "tempfile", "kind": "dev"}],
            }],
        }))
        .unwrap();
        let package = &workspace.packages[0];
        assert_eq!(package.name, "acteon-state");
        assert_eq!(package.folder, "crates/state");
        assert_eq!(package.short_name(), "state");
        assert_eq!(package.features, ["redis"]);
        let expected = [("serde", false), ("tempfile", true)]
            .map(|(name, is_dev)| Dependency { package: name.to_owned(), is_dev });
        assert_eq!(package.dependencies, expected);
    }

    #[test]
    fn metadata_of_another_shape_is_an_error() {
        let failure = Workspace::parse(&json!({"workspace_root": 1})).unwrap_err();
        assert!(failure.0.contains("cargo metadata"), "{}", failure.0);
    }

    #[test]
    fn only_what_tells_of_our_package_is_kept_from_cargo() {
        assert!(["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"].iter().all(|name| is_of_a_package(name.as_ref())));
        assert!(["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR"].iter().all(|name| !is_of_a_package(name.as_ref())));
    }
}
