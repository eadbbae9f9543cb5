//! pgbench, which comes with PostgreSQL: a row per statement as somebody would write it by hand, over the same number of
//! connections.

use std::io::Write as _;
use std::process::Command;

use acteon_test_support::{PostgresServer, postgres_bin_folder};

use crate::Outcome;
use crate::report::Report;

const SECONDS: u32 = 3;

const SCRIPTS: [(&str, &str); 3] = [
    (
        "SELECT",
        "\\set n random(0, 99999)
         SELECT value, version, expires_at_us FROM acteon_entries
          WHERE namespace = 'bench' AND tenant = 'acme' AND kind = 'postgres' AND id = 'entry ' || :n;",
    ),
    (
        "INSERT .. ON CONFLICT DO UPDATE",
        "\\set n random(0, 32767)
         INSERT INTO acteon_entries (namespace, tenant, kind, id, value, version, expires_at_us)
         VALUES ('bench', 'acme', 'postgres', 'pgbench ' || :n, convert_to(repeat('x', 64), 'UTF8'), gen_random_uuid(),
                 (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 600000000)
             ON CONFLICT (namespace, tenant, kind, id) DO UPDATE
            SET value = excluded.value, version = excluded.version, expires_at_us = excluded.expires_at_us;",
    ),
    (
        "the same of one hot row",
        "INSERT INTO acteon_entries (namespace, tenant, kind, id, counter)
         VALUES ('bench', 'acme', 'postgres', 'pgbench hot', 1)
             ON CONFLICT (namespace, tenant, kind, id) DO UPDATE SET counter = acteon_entries.counter + 1;",
    ),
];

/// Prints a table of what it reaches.
pub(super) fn run(server: &PostgresServer, connections: u32, report: &mut Report) -> Outcome {
    report.line(format_args!(
        "\nFor orientation, `pgbench -M prepared -c {connections}` with plain statements on the same table:"
    ));
    report.table(&["statement", "per second", "latency, mean"], 1);
    for (name, script) in SCRIPTS {
        let output = pgbench(server, connections, script)?;
        let figure = |label: &str| {
            let (_, rest) = output.split_once(label)?;
            rest.split_whitespace().next()?.parse::<f64>().ok()
        };
        let (rate, latency_ms) = figure("tps = ").zip(figure("latency average = ")).ok_or("pgbench says no figures")?;
        report.line(format_args!("| {name} | {rate:.0} | {latency_ms:.2} ms |"));
    }
    Ok(())
}

fn pgbench(server: &PostgresServer, connections: u32, script: &str) -> Outcome<String> {
    let program = postgres_bin_folder().ok_or("pgbench is not installed")?.join("pgbench");
    let mut file = tempfile::NamedTempFile::new()?;
    // A statement ends at its semicolon, a command of pgbench's own at the end of its line.
    file.write_all(script.as_bytes())?;
    let connections = connections.to_string();
    let output = Command::new(program)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--client", &connections])
        .args(["--time", &SECONDS.to_string(), "--host=127.0.0.1", "--port", &server.port().to_string()])
        .args(["--username", server.user(), "--file"])
        .arg(file.path())
        .arg("postgres")
        .env("PGPASSWORD", server.password())
        .output()?;
    if !output.status.success() {
        return Err(format!("pgbench: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
