//! Starting, killing, freezing and restarting a PostgreSQL.

use std::env;
use std::fs;
use std::io;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use acteon_test_support::{
    POSTGRES_TEMPLATE_ENV, PostgresOptions, PostgresServer, PostgresTemplate, PostgresTls, StartError, supervised,
    supervised_command,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// Tells a test that it was started by itself, as the process that is to be killed.
const VICTIM_ENV: &str = "ACTEON_TEST_VICTIM";

fn start() -> PostgresServer {
    PostgresServer::start(PostgresOptions::default()).unwrap()
}

fn with_settings(settings: &[&str]) -> Result<PostgresServer, StartError> {
    let settings = settings.iter().map(|line| (*line).to_owned()).collect();
    PostgresServer::start(PostgresOptions { settings, ..PostgresOptions::default() })
}

/// The fields of the only row, separated by `|`.
fn one(server: &PostgresServer, sql: &str) -> String {
    let rows = server.query(sql).unwrap();
    let [row] = rows.as_slice() else { panic!("{sql}: {rows:?}") };
    let fields: Vec<_> = row.iter().map(|field| field.as_deref().unwrap_or("NULL")).collect();
    fields.join("|")
}

#[test]
fn a_started_server_answers_at_its_url() {
    let server = start();
    assert_eq!(
        one(&server, "SELECT current_user, current_database(), inet_server_port()"),
        format!("acteon|postgres|{}", server.port())
    );
    let expected = format!("postgres://acteon:{}@{}/postgres", server.password(), server.address());
    assert_eq!(server.url(), expected);
}

#[test]
fn it_is_utf8_sorts_by_code_and_takes_200_connections() {
    let server = start();
    let sql = "SELECT current_setting('server_encoding'), datcollate, current_setting('max_connections'), rolsuper \
               FROM pg_database, pg_roles WHERE datname = current_database() AND rolname = current_user";
    assert_eq!(one(&server, sql), "UTF8|C|200|t");
}

#[test]
fn rows_keep_nulls_empty_texts_and_line_breaks_apart() {
    let server = start();
    let rows = server.query("SET work_mem = '1MB'; VALUES (NULL, ''), ('a\nb', 'é')").unwrap();
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(rows, [vec![None, text("")], vec![text("a\nb"), text("é")]]);
    assert!(server.query("SELECT 1 WHERE false").unwrap().is_empty());
}

#[test]
fn a_failed_statement_is_an_error_with_the_reason() {
    let error = start().query("SELECT 1 / 0").unwrap_err();
    assert!(error.to_string().contains("division by zero"), "{error}");
}

#[test]
fn databases_are_separate() {
    let server = start();
    server.create_database("a \"name\"").unwrap();
    server.query_in("a \"name\"", "CREATE TABLE here (x int)").unwrap();
    assert_eq!(one(&server, "SELECT to_regclass('here')"), "NULL");
    assert!(server.url_for("other").ends_with("/other"));
    assert!(server.create_database("a \"name\"").unwrap_err().to_string().contains("already exists"));
}

#[test]
fn servers_started_at_once_are_separate() {
    let starting: Vec<_> = (0..3).map(|_| thread::spawn(start)).collect();
    let servers: Vec<_> = starting.into_iter().map(|starting| starting.join().unwrap()).collect();
    for (number, server) in servers.iter().enumerate() {
        server.query(&format!("CREATE TABLE number AS SELECT {number} AS n")).unwrap();
    }
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(one(server, "SELECT n FROM number"), number.to_string());
    }
}

#[test]
fn a_killed_server_refuses_connections_and_comes_back_with_its_data() {
    let mut server = start();
    let address = server.address();
    server.query("CREATE TABLE kept AS SELECT 7 AS n").unwrap();
    server.kill9().unwrap();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    server.restart().unwrap();
    assert_eq!(server.address(), address);
    assert_eq!(one(&server, "SELECT n FROM kept"), "7");
    assert!(server.log_tail().contains("not properly shut down"), "{}", server.log_tail());
}

#[test]
fn a_kill_reaches_the_process_of_a_busy_connection() {
    let mut server = start();
    let busy = Busy::connect(&server);
    server.kill9().unwrap();
    assert!(!busy.is_served(), "a process of the server is left");
}

#[test]
fn a_killed_server_leaves_no_shared_memory() {
    let mut server = start();
    let lock = fs::read_to_string(server.folder().join("data/postmaster.pid")).unwrap();
    let key = lock.lines().nth(6).unwrap().split_whitespace().next().unwrap().to_owned();
    let is_listed = || {
        fs::read_to_string("/proc/sysvipc/shm")
            .unwrap()
            .lines()
            .any(|line| line.split_whitespace().next() == Some(&key))
    };
    assert!(is_listed());
    server.kill9().unwrap();
    assert!(!is_listed());
}

#[test]
fn a_server_that_is_stopped_fast_has_shut_down_cleanly() {
    let mut server = start();
    server.query("CREATE TABLE kept AS SELECT 7 AS n").unwrap();
    server.stop_fast().unwrap();
    assert!(server.log_tail().contains("database system is shut down"), "{}", server.log_tail());
    assert_eq!(server.stop_fast().unwrap_err().kind(), io::ErrorKind::NotConnected);
    server.restart().unwrap();
    assert_eq!(one(&server, "SELECT n FROM kept"), "7");
    assert!(!server.log_tail().contains("not properly shut down"), "{}", server.log_tail());
}

#[test]
fn a_paused_server_stands_still_until_it_is_resumed() {
    let server = start();
    let busy = Busy::connect(&server);
    server.pause().unwrap();
    assert_eq!(busy.state(), Some('T'));
    let mut client = TcpStream::connect(server.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
    // Asks whether the server speaks TLS, which it answers before anything else.
    io::Write::write_all(&mut client, &[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    let mut reply = [0; 1];
    let silence = io::Read::read(&mut client, &mut reply).unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
    server.resume().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    io::Read::read_exact(&mut client, &mut reply).unwrap();
    assert_eq!(&reply, b"N");
    assert!(matches!(busy.state(), Some('S' | 'R')), "{:?}", busy.state());
}

#[test]
fn a_dead_server_cannot_be_paused() {
    let mut server = start();
    server.kill9().unwrap();
    assert_eq!(server.pause().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn the_password_is_required_and_not_on_any_command_line() {
    let server = start();
    let address = server.address();
    for host in [address.ip().to_string(), server.folder().display().to_string()] {
        let psql = Command::new("psql")
            .args(["--no-password", "--host", &host, "--port", &address.port().to_string()])
            .args(["--username", "acteon", "--dbname", "postgres", "--command", "SELECT 1"])
            .env_remove("PGPASSWORD")
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&psql.stderr).contains("no password supplied"), "{psql:?}");
    }
    let secret = server.password().to_owned();
    let asking = thread::spawn(move || {
        server.query("SELECT pg_sleep(0.5)").unwrap();
    });
    while !asking.is_finished() {
        let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
        assert!(!String::from_utf8_lossy(&processes.stdout).contains(&secret));
    }
    asking.join().unwrap();
}

#[test]
fn nobody_else_can_look_into_the_folder() {
    let server = start();
    let mode = fs::metadata(server.folder()).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "{mode:o}");
}

#[test]
fn settings_and_durability_are_in_force() {
    let server = with_settings(&["work_mem = '3MB'"]).unwrap();
    let sql = "SELECT current_setting('work_mem'), current_setting('fsync'), current_setting('synchronous_commit')";
    assert_eq!(one(&server, sql), "3MB|off|on");
    let options = PostgresOptions { durable: true, ..PostgresOptions::default() };
    assert_eq!(one(&PostgresServer::start(options).unwrap(), sql), "4MB|on|on");
}

#[test]
fn lines_of_hba_come_before_the_last_word() {
    let hba = vec!["host all acteon_guest 127.0.0.1/32 reject".to_owned()];
    let server = PostgresServer::start(PostgresOptions { hba, ..PostgresOptions::default() }).unwrap();
    server.query("CREATE ROLE acteon_guest LOGIN PASSWORD 'guest'").unwrap();
    let psql = Command::new("psql")
        .arg(server.url().replace("acteon:", "acteon_guest:"))
        .arg("-c")
        .arg("SELECT 1")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&psql.stderr).contains("rejects connection"), "{psql:?}");
}

#[test]
fn a_server_with_a_certificate_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"])
        .args(["-subj", "/CN=localhost", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let tls = PostgresTls { ca: Some(certificate.clone()), certificate, key };
    let server = PostgresServer::start(PostgresOptions { tls: Some(tls), ..PostgresOptions::default() }).unwrap();
    assert_eq!(one(&server, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t");
}

#[test]
fn a_server_that_does_not_come_up_shows_its_log() {
    let error = with_settings(&["no_such_setting = 1"]).expect_err("postgres refuses unknown settings");
    assert!(matches!(&error, StartError::NotReady { .. }), "{error:?}");
    assert!(error.to_string().contains("no_such_setting"), "{error}");
}

#[test]
fn a_dropped_server_leaves_neither_process_nor_folder() {
    let server = start();
    let (address, folder) = (server.address(), server.folder().to_owned());
    let busy = Busy::connect(&server);
    server.pause().unwrap(); // the hardest to stop: it reacts to SIGKILL only
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    assert!(!folder.exists() && !busy.is_served());
}

/// The server is started as another user where the test is root, and a change of user makes the kernel forget what it was asked to
/// do when the parent dies.
#[test]
fn a_server_dies_with_the_process_that_started_it() {
    const NAME: &str = "a_server_dies_with_the_process_that_started_it";
    if Victim::is_this() {
        return Victim::start_server();
    }
    let mut victim = Victim::run(NAME, None);
    let lock = fs::read_to_string(victim.folder.join("data/postmaster.pid")).unwrap();
    let server = lock.lines().next().unwrap();
    assert!(is_running(server));
    victim.kill();
    let deadline = Instant::now() + PATIENCE;
    while is_running(server) {
        assert!(Instant::now() < deadline, "the server outlives its parent");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_server_from_a_template_has_its_password() {
    const NAME: &str = "a_server_from_a_template_has_its_password";
    if Victim::is_this() {
        return Victim::start_server();
    }
    let template = PostgresTemplate::make().unwrap();
    let victim = Victim::run(NAME, Some(&template));
    let password = fs::read_to_string(template.path().join("password")).unwrap();
    assert!(victim.url.contains(&format!(":{password}@")), "{}", victim.url);
    let psql = Command::new("psql").arg(&victim.url).args(["-XAtc", "SHOW fsync"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&psql.stdout), "off\n", "{psql:?}");
}

/// A test that runs in a process of its own, with variables of its own, and is killed in the end.
struct Victim {
    process: Child,
    /// Where its server is.
    url: String,
    folder: PathBuf,
}

impl Victim {
    /// Whether we are it.
    fn is_this() -> bool {
        env::var_os(VICTIM_ENV).is_some()
    }

    /// What it does: starts a server, says where it is, and waits until it is killed.
    fn start_server() {
        let server = start();
        println!("\nstarted {} {}", server.url(), server.folder().display());
        thread::sleep(PATIENCE * 10);
    }

    /// Runs the test of this name as a victim until its server is up.
    fn run(test: &str, template: Option<&PostgresTemplate>) -> Self {
        let mut command = supervised_command(env::current_exe().unwrap());
        command.args([test, "--nocapture"]).env(VICTIM_ENV, "1").stdout(Stdio::piped());
        match template {
            Some(template) => command.env(POSTGRES_TEMPLATE_ENV, template.path()),
            None => command.env_remove(POSTGRES_TEMPLATE_ENV),
        };
        let mut victim = Self { process: supervised(command).unwrap(), url: String::new(), folder: PathBuf::new() };
        let output = io::BufReader::new(victim.process.stdout.take().unwrap());
        let line = io::BufRead::lines(output)
            .map(Result::unwrap)
            .find(|line| line.starts_with("started "))
            .expect("the victim starts a server");
        let words: Vec<_> = line.split(' ').collect();
        words[1].clone_into(&mut victim.url);
        victim.folder = PathBuf::from(words[2]);
        victim
    }

    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Victim {
    /// Also removes what a killed process cannot: the folder of its server, and the shared memory.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let lock = fs::read_to_string(self.folder.join("data/postmaster.pid")).unwrap_or_default();
        if let Some(segment) = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)) {
            let _ = Command::new("ipcrm").args(["-m", segment]).status();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A client whose statement takes a minute.
struct Busy {
    client: Child,
    /// The process that serves it.
    pid: String,
}

impl Busy {
    fn connect(server: &PostgresServer) -> Self {
        let mut psql = supervised_command("psql");
        psql.arg(server.url()).args(["-c", "SELECT pg_sleep(60)"]).stderr(Stdio::null());
        // From here on, so that the client is collected whatever happens below.
        let mut busy = Self { client: supervised(psql).unwrap(), pid: String::new() };
        let deadline = Instant::now() + PATIENCE;
        while busy.pid.is_empty() {
            assert!(Instant::now() < deadline, "the statement does not run");
            let rows = server.query("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'").unwrap();
            busy.pid = rows.concat().pop().flatten().unwrap_or_default();
        }
        busy
    }

    /// Whether it is still served.
    fn is_served(&self) -> bool {
        is_running(&self.pid)
    }

    /// The letter that Linux shows for the state of the process that serves it.
    fn state(&self) -> Option<char> {
        state(&self.pid)
    }
}

fn is_running(pid: &str) -> bool {
    !matches!(state(pid), None | Some('Z'))
}

fn state(pid: &str) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.client.kill();
        let _ = self.client.wait();
    }
}
