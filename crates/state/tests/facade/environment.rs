//! Settings from variables and from the command line, over those of the file.

use crate::{Settings, fault, with_env};

const FILE: &str = "[server]\nport = 80\n[state]\nbackend = 'redis'\nurl = 'redis://file'\n[[jobs]]\nname = 'a'";

fn read(variables: &[(&str, &str)]) -> Settings {
    let document = with_env(FILE, variables).unwrap_or_else(|error| panic!("{error}"));
    document.read().unwrap_or_else(|error| panic!("{error}"))
}

fn refused(variables: &[(&str, &str)]) -> String {
    match with_env(FILE, variables) {
        Ok(document) => fault(&document).unwrap_or_else(|| panic!("accepted {variables:?}")).to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn variables_win_over_the_file_and_become_the_type_that_is_asked_for() {
    let settings = read(&[
        ("ACTEON__SERVER__HOST", "0.0.0.0"),
        ("ACTEON__SERVER__PORT", "8080"),
        ("ACTEON__SERVER__VERBOSE", "true"),
        ("ACTEON__SERVER__LOAD_MAX", "0.5"),
        ("ACTEON__SERVER__TAGS", "blue, green,"),
        ("ACTEON__STATE__URL", "redis://env"),
        ("ACTEON__STATE__TABLE_NAME", "with_underscore"),
        ("ACTEON__STATE__REQUIRE", "cas,fencing"),
        ("ACTEON__STATE__OPTIONAL", "true"),
        ("ACTEON__STATE__LAYERS__TIMEOUT", "3s"),
        ("ACTEON__STATE__LAYERS__RETRY__ATTEMPTS", "7"),
        ("ACTEON__STATE__LAYERS__CIRCUIT_BREAKER", "off"),
        ("ACTEON__STATE__LOCK__BACKEND", "memory"),
        ("ACTEON__JOBS__0__NAME", "b"),
        ("PATH", "/bin"),
        ("ACTEON_HOME", "not ours: one underscore"),
    ]);
    assert_eq!((settings.server.host.as_str(), settings.server.port), ("0.0.0.0", 8080));
    assert!(settings.server.verbose && settings.server.load_max == 0.5);
    assert_eq!(settings.server.tags, ["blue", "green"]);
    let state = settings.state;
    assert_eq!(state.url.as_ref().map(|url| url.expose()), Some("redis://env"));
    assert_eq!(state.table_name.as_deref(), Some("with_underscore"));
    assert_eq!(state.require, ["cas", "fencing"]);
    assert!(state.optional);
    assert_eq!(state.lock.map(|lock| lock.backend).as_deref(), Some("memory"));
    let layers = state.layers.layers(true, None);
    assert_eq!(layers.deadline, Some(std::time::Duration::from_secs(3)));
    assert_eq!(layers.retry.map(|policy| policy.attempts_max), Some(7));
    assert!(layers.breaker.is_none());
    assert_eq!(settings.jobs[0].name, "b");
}

#[test]
fn a_variable_that_is_no_setting_is_named() {
    for (variables, expected) in [
        (
            [("ACTEON__STATE__ULR", "redis://:hunter2@h")],
            "environment variable ACTEON__STATE__ULR (state.ulr): unknown key `ulr`; did you mean `ACTEON__STATE__URL`?",
        ),
        (
            [("ACTEON__STAET__URL", "redis://:hunter2@h")],
            "environment variable ACTEON__STAET__URL (staet): unknown key `staet`; did you mean \
             `ACTEON__STATE__URL`?",
        ),
        (
            [("ACTEON__SERVER__PORT", "http")],
            "environment variable ACTEON__SERVER__PORT (server.port): expected a whole number from 0 to 65535, found string \"http\"",
        ),
        (
            [("ACTEON__SERVER__PORT", "70000")],
            "environment variable ACTEON__SERVER__PORT (server.port): expected a whole number from 0 to 65535, found integer `70000`",
        ),
        (
            [("ACTEON__SERVER__VERBOSE", "yes")],
            "environment variable ACTEON__SERVER__VERBOSE (server.verbose): expected true or false, found `yes`",
        ),
        (
            [("ACTEON__STATE__LAYERS__TIMEOUT", "5")],
            "environment variable ACTEON__STATE__LAYERS__TIMEOUT (state.layers.timeout): `5` has no unit: write \"5s\" or \
             \"5ms\"",
        ),
        (
            [("ACTEON__STATE__BACKEND__X", "1")],
            "environment variable ACTEON__STATE__BACKEND__X (state.backend.x): `x` cannot be set: what it is in is a \
             value, not a table",
        ),
        (
            [("ACTEON__JOBS__4__NAME", "x")],
            "environment variable ACTEON__JOBS__4__NAME (jobs.4.name): there is no entry 4: the list has 1, counted from 0",
        ),
        (
            [("ACTEON____URL", "x")],
            "environment variable ACTEON____URL: a name between two underscores is missing; write ACTEON__TABLE__KEY",
        ),
        (
            [("ACTEON__STATE__MEMORY__VALUE_BYTES_MAX", "1MiB")],
            "environment variable ACTEON__STATE__MEMORY__VALUE_BYTES_MAX (state.memory): [state.memory] is not a section of \
             the chosen backend, \"redis\"; remove it, or set backend = \"memory\"",
        ),
    ] {
        let error = refused(&variables);
        assert_eq!(error, expected);
        assert!(!error.contains("hunter2"));
    }
}

#[test]
fn secrets_come_from_files_and_white_space_around_them_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("url");
    std::fs::write(&path, "  redis://:hunter2@h\n").unwrap();
    let path = path.to_str().unwrap();

    let settings = read(&[("ACTEON__STATE__URL_FILE", path)]);
    assert_eq!(settings.state.url.unwrap().expose(), "redis://:hunter2@h");

    let text = format!("[state]\nbackend = 'redis'\nurl_file = '{path}'\n[state.redis]\npassword_file = '{path}'");
    let settings: Settings = with_env(&text, &[]).unwrap().read().unwrap();
    assert_eq!(settings.state.url.as_ref().unwrap().expose(), "redis://:hunter2@h");
    assert_eq!(settings.state.sections["redis"]["password"].as_str(), Some("redis://:hunter2@h"));
    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn a_secret_file_that_is_overridden_need_not_exist() {
    let text = "[state]\nbackend = 'redis'\nurl_file = '/nonexistent'";
    let settings: Settings = with_env(text, &[("ACTEON__STATE__URL", "redis://env")]).unwrap().read().unwrap();
    assert_eq!(settings.state.url.unwrap().expose(), "redis://env");
    let error = fault(&with_env(text, &[]).unwrap()).unwrap().to_string();
    assert!(error.starts_with("app.toml:3: state.url: cannot read the secret from /nonexistent: "), "{error}");
}

#[test]
fn a_secret_that_is_given_twice_is_refused() {
    assert_eq!(
        refused(&[("ACTEON__STATE__URL", "redis://:hunter2@h"), ("ACTEON__STATE__URL_FILE", "/run/secrets/url")]),
        "environment variable ACTEON__STATE__URL_FILE (state.url_file): ACTEON__STATE__URL sets the same key; keep one"
    );
}

#[test]
fn an_empty_or_endless_secret_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (empty, long) = (folder.path().join("empty"), folder.path().join("long"));
    std::fs::write(&empty, " \n").unwrap();
    std::fs::write(&long, vec![b'x'; 70_000]).unwrap();
    let refused = |path: &std::path::Path| refused(&[("ACTEON__STATE__URL_FILE", path.to_str().unwrap())]);
    assert!(refused(&empty).ends_with("is empty"), "{}", refused(&empty));
    assert!(refused(&long).ends_with("has more than 65536 bytes: not a secret"), "{}", refused(&long));
}

#[test]
fn a_key_that_merely_ends_in_file_is_a_plain_key() {
    let document = with_env(FILE, &[("ACTEON__STATE__REDIS__CA_FILE", "/etc/ca.pem")]).unwrap();
    let settings: Settings = document.read().unwrap();
    assert_eq!(settings.state.sections["redis"]["ca_file"].as_str(), Some("/etc/ca.pem"));
}

#[test]
fn what_is_set_by_hand_wins_over_variables_and_is_named_in_errors() {
    let mut document = with_env(FILE, &[("ACTEON__SERVER__PORT", "8080")]).unwrap();
    document.set("server.port", "--port", 9090).unwrap();
    document.set("server.host", "--host", "::1").unwrap();
    let settings: Settings = document.read().unwrap();
    assert_eq!((settings.server.port, settings.server.host.as_str()), (9090, "::1"));
    assert_eq!(document.origin("server.port").map(ToString::to_string).as_deref(), Some("--port"));
    assert_eq!(document.origin("state.url").map(ToString::to_string).as_deref(), Some("app.toml:5"));

    document.set("server.port", "--port", 70_000).unwrap();
    let error = fault(&document).unwrap().to_string();
    assert_eq!(error, "--port (server.port): expected a whole number from 0 to 65535, found integer `70000`");
    let error = document.set("server.port.x", "--x", 1).unwrap_err().to_string();
    assert_eq!(error, "--x (server.port.x): `x` cannot be set: what it is in is a value, not a table");
}

#[test]
fn variables_alone_are_a_configuration() {
    let settings: Settings = with_env("", &[("ACTEON__STATE__BACKEND", "memory")]).unwrap().read().unwrap();
    assert_eq!(settings.state.backend, "memory");
}
