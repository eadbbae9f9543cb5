//! Starting, killing, freezing and restarting a server.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use acteon_test_support::{RedisOptions, RedisServer, StartError};

fn start() -> RedisServer {
    RedisServer::start(RedisOptions::default()).unwrap()
}

fn durable() -> RedisServer {
    RedisServer::start(RedisOptions { append_only: true, ..RedisOptions::default() }).unwrap()
}

#[test]
fn a_started_server_answers_at_its_url() {
    let server = start();
    assert_eq!(server.query(&["PING"]).unwrap().as_deref(), Some("PONG"));
    assert_eq!(server.url(), format!("redis://{}", server.address()));
}

#[test]
fn servers_started_at_once_are_separate() {
    let servers: Vec<_> = (0..4)
        .map(|_| std::thread::spawn(start))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|starting| starting.join().unwrap())
        .collect();
    for (number, server) in servers.iter().enumerate() {
        server.query(&["SET", "number", &number.to_string()]).unwrap();
    }
    for (number, server) in servers.iter().enumerate() {
        assert_eq!(server.query(&["GET", "number"]).unwrap(), Some(number.to_string()));
    }
}

#[test]
fn a_killed_server_refuses_connections_and_comes_back_on_its_port() {
    let mut server = start();
    let address = server.address();
    server.kill9().unwrap();
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    server.restart().unwrap();
    assert_eq!(server.address(), address);
    assert_eq!(server.query(&["PING"]).unwrap().as_deref(), Some("PONG"));
}

#[test]
fn an_append_only_server_keeps_its_data_through_a_kill() {
    let mut server = durable();
    server.query(&["SET", "kept", "yes"]).unwrap();
    server.kill9().unwrap();
    server.restart().unwrap();
    assert_eq!(server.query(&["GET", "kept"]).unwrap().as_deref(), Some("yes"));
}

#[test]
fn a_plain_server_is_empty_after_a_restart() {
    let mut server = start();
    server.query(&["SET", "lost", "yes"]).unwrap();
    server.restart().unwrap();
    assert_eq!(server.query(&["GET", "lost"]).unwrap(), None);
}

#[test]
fn a_paused_server_is_silent_until_it_is_resumed() {
    let server = start();
    let mut client = TcpStream::connect(server.address()).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    server.pause().unwrap();
    io::Write::write_all(&mut client, b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    let silence = io::Read::read(&mut client, &mut reply).unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
    server.resume().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    io::Read::read_exact(&mut client, &mut reply).unwrap();
    assert_eq!(&reply, b"+PONG\r\n");
}

#[test]
fn a_dead_server_cannot_be_paused() {
    let mut server = start();
    server.kill9().unwrap();
    assert_eq!(server.pause().unwrap_err().kind(), io::ErrorKind::NotConnected);
}

#[test]
fn a_password_is_required_and_not_on_the_command_line() {
    let options = RedisOptions { password: Some("s3cret".to_owned()), ..RedisOptions::default() };
    let server = RedisServer::start(options).unwrap();
    assert_eq!(server.url(), format!("redis://:s3cret@127.0.0.1:{}", server.port()));
    assert_eq!(server.query(&["PING"]).unwrap().as_deref(), Some("PONG"));
    let mut stranger = TcpStream::connect(server.address()).unwrap();
    io::Write::write_all(&mut stranger, b"PING\r\n").unwrap();
    let mut reply = [0; 7];
    io::Read::read_exact(&mut stranger, &mut reply).unwrap();
    assert_eq!(&reply, b"-NOAUTH");
    let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&processes.stdout).contains("s3cret"));
}

#[test]
fn a_unix_socket_is_served_when_asked_for() {
    let options = RedisOptions { unix_socket: true, ..RedisOptions::default() };
    let server = RedisServer::start(options).unwrap();
    UnixStream::connect(server.socket_path().unwrap()).unwrap();
    assert_eq!(start().socket_path(), None);
}

#[test]
fn further_settings_are_in_force() {
    let settings = vec!["maxmemory 12mb".to_owned()];
    let server = RedisServer::start(RedisOptions { settings, ..RedisOptions::default() }).unwrap();
    let info = server.query(&["INFO", "memory"]).unwrap().unwrap();
    assert!(info.contains("maxmemory:12582912"), "{info}");
}

#[test]
fn a_server_that_does_not_come_up_shows_its_log() {
    let settings = vec!["no-such-setting yes".to_owned()];
    let error = RedisServer::start(RedisOptions { settings, ..RedisOptions::default() })
        .expect_err("redis-server refuses unknown settings");
    assert!(matches!(&error, StartError::NotReady { .. }), "{error:?}");
    assert!(error.to_string().contains("no-such-setting"), "{error}");
}

#[test]
fn a_dropped_server_leaves_neither_process_nor_folder() {
    let server = start();
    let (address, folder) = (server.address(), server.folder().to_owned());
    server.pause().unwrap(); // the hardest to stop: it reacts to SIGKILL only
    drop(server);
    assert!(TcpStream::connect(address).is_err());
    assert!(!folder.exists());
}
