//! `acteon-server migrate`: brings the tables of the backends up to date without starting a server.
//!
//! What was done goes to stdout, a line for each backend; the reason of a failure to stderr. Repeating it is safe, and so is doing
//! it while servers run.

use std::io::Write;

use acteon_state::{Migrate, SchemaReport, SchemaVersions};

use crate::config::Config;
use crate::start_error::StartError;

/// Migrates the backends of data and locks, or only checks them, and writes what was found to `out`.
///
/// # Errors
/// [`StartError`] when a backend cannot be reached or refuses; when checking, also when there is something to do.
pub async fn migrate(config: &Config, how: Migrate, out: &mut impl Write) -> Result<(), StartError> {
    let what = match how {
        Migrate::Apply => "the backend cannot be migrated",
        Migrate::Check => "the backend cannot be checked",
    };
    let migrated = acteon_state::migrate(&config.state, how).await;
    let reports = migrated.map_err(|error| StartError::because(what, error.message()))?;
    for report in &reports {
        writeln!(out, "{}", describe(report, how))
            .map_err(|error| StartError::new("the report cannot be written", error))?;
    }
    if how == Migrate::Check && reports.iter().any(SchemaReport::is_outdated) {
        let missing: Vec<&str> =
            reports.iter().filter(|report| report.is_outdated()).map(|report| report.section.as_str()).collect();
        let reason = format!("missing in: {}", missing.join(", "));
        return Err(StartError::because("the schema is not up to date", reason)
            .with_hint("run `acteon-server migrate` with a role that may create tables"));
    }
    Ok(())
}

fn describe(report: &SchemaReport, how: Migrate) -> String {
    let SchemaReport { section, backend, schema } = report;
    match schema {
        None => format!("{section}: {backend} has no schema; there is nothing to migrate"),
        Some(SchemaVersions { from, to }) if from == to => {
            format!("{section}: {backend} has schema version {to}; there is nothing to migrate")
        }
        Some(SchemaVersions { from, to }) => match how {
            Migrate::Apply => format!("{section}: {backend} was migrated from schema version {from} to {to}"),
            Migrate::Check => format!("{section}: {backend} has schema version {from}, and version {to} is needed"),
        },
    }
}

#[cfg(test)]
mod tests {
    use acteon_state::{Migrate, SchemaReport, SchemaVersions};

    use super::describe;

    fn report(from: u32, to: u32) -> SchemaReport {
        let schema = Some(SchemaVersions { from, to });
        SchemaReport { section: "state.lock".to_owned(), backend: "postgres".to_owned(), schema }
    }

    #[test]
    fn both_versions_are_told() {
        let done = describe(&report(2, 5), Migrate::Apply);
        assert_eq!(done, "state.lock: postgres was migrated from schema version 2 to 5");
        let due = describe(&report(0, 5), Migrate::Check);
        assert_eq!(due, "state.lock: postgres has schema version 0, and version 5 is needed");
        assert_eq!(describe(&report(5, 5), Migrate::Apply), describe(&report(5, 5), Migrate::Check));
    }

    #[cfg(feature = "memory")]
    #[tokio::test]
    async fn a_backend_without_a_schema_has_nothing_to_migrate() {
        for how in [Migrate::Apply, Migrate::Check] {
            let mut out = Vec::new();
            super::migrate(&crate::Config::default(), how, &mut out).await.expect("nothing can go wrong");
            let text = String::from_utf8(out).expect("text");
            assert_eq!(text, "state: memory has no schema; there is nothing to migrate\n");
        }
    }
}
