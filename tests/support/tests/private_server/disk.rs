//! A disk that is filled under a running server.

use acteon_test_support::{PostgresDisk, PostgresOptions, PostgresServer, RedisOptions, RedisServer};

#[test]
fn a_redis_refuses_writes_while_its_disk_is_full_and_keeps_its_data_over_a_restart() {
    let settings = vec!["appendonly yes".to_owned(), "appendfsync everysec".to_owned()];
    let options = RedisOptions { small_disk_bytes: Some(8 << 20), settings, ..RedisOptions::default() };
    let mut server = RedisServer::start(options).unwrap();
    server.query(&["SET", "a", "1"]).unwrap();
    let disk = server.disk().expect("it was asked for");
    disk.fill().unwrap();
    let value = "x".repeat(4096); // the last page of the file may have room
    let refused = (0..100).find_map(|_| server.query(&["SET", "b", &value]).err()).expect("the disk is full");
    assert!(refused.to_string().contains("MISCONF"), "{refused}");
    assert_eq!(server.query(&["GET", "a"]).unwrap().as_deref(), Some("1"));
    disk.free().unwrap();
    server.restart().unwrap();
    assert_eq!(server.query(&["GET", "a"]).unwrap().as_deref(), Some("1"));
}

#[test]
fn a_postgres_cannot_extend_tables_while_its_disk_is_full() {
    let options = PostgresOptions { small_disk: Some((PostgresDisk::Tables, 64 << 20)), ..PostgresOptions::default() };
    let server = PostgresServer::start(options).unwrap();
    server.query("CREATE TABLE numbers (number int)").unwrap();
    let disk = server.disk().expect("it was asked for");
    disk.fill().unwrap();
    let fill = "INSERT INTO numbers SELECT generate_series(1, 100000)";
    let refused = server.query(fill).unwrap_err();
    assert!(refused.to_string().contains("No space left on device"), "{refused}");
    disk.free().unwrap();
    server.query(fill).unwrap();
}
