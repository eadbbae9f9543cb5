//! Files and values as the documentation of the format describes them, byte by byte, and what no file should be.

use std::io::Read;

use super::crc64::Crc64;
use super::{
    Compression, FileFacts, FileWriter, Problem, ReadOptions, ReadReport, Reader, Record, RecordRef, Touched,
    Unsupported, Value, ValueRef, read_value, type_of, types, write_record, write_select_database, write_value,
};
use crate::value::{CollectionValue, Fields, Limits, List, Set, Zset};

/// The fields of a `Record`, the value as text.
type Shown = (u64, String, Option<u64>, Option<Touched>, String);

/// Bytes in hexadecimal, with texts in single quotes between them.
fn bytes(notation: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, part) in notation.split('\'').enumerate() {
        if number % 2 == 1 {
            bytes.extend_from_slice(part.as_bytes());
        } else {
            let pairs = part.split_whitespace();
            bytes.extend(pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two digits")));
        }
    }
    bytes
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

fn show(value: &Value) -> String {
    let mut parts: Vec<String> = match value {
        Value::Str(string) => return text(string),
        Value::Collection(CollectionValue::List(list)) => return list.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Collection(CollectionValue::Set(set)) => set.iter().map(|member| text(&member)).collect(),
        Value::Collection(CollectionValue::Hash(fields)) => {
            fields.iter().map(|(field, value)| format!("{}={}", text(field), text(value))).collect()
        }
        Value::Collection(CollectionValue::SortedSet(members)) => {
            members.iter().map(|(member, score)| format!("{}={score}", text(member))).collect()
        }
    };
    parts.sort();
    parts.join(" ")
}

/// The value of this type in these bytes, which are all used.
fn value(kind: u8, notation: &str) -> Result<String, String> {
    let bytes = bytes(notation);
    let mut input = &*bytes;
    let value = read_value(kind, &mut input, &Limits::default()).map_err(|error| error.problem().to_string())?;
    assert_eq!(input, b"", "{notation}");
    Ok(show(&value))
}

/// A packed collection: its bytes, as a string.
fn packed(kind: u8, notation: &str) -> Result<String, String> {
    let len = bytes(notation).len();
    assert!(len < 1 << 14);
    value(kind, &format!("{:02x} {:02x} {notation}", 0x40 | len >> 8, len & 0xff))
}

#[test]
fn strings_have_lengths_of_four_forms_and_encodings_of_four() {
    assert_eq!(value(types::STRING, "03 'abc'").unwrap(), "abc");
    assert_eq!(value(types::STRING, "40 03 'abc'").unwrap(), "abc");
    assert_eq!(value(types::STRING, "80 00 00 00 03 'abc'").unwrap(), "abc");
    assert_eq!(value(types::STRING, "81 00 00 00 00 00 00 00 03 'abc'").unwrap(), "abc");
    assert_eq!(value(types::STRING, "c0 fe").unwrap(), "-2");
    assert_eq!(value(types::STRING, "c1 18 fc").unwrap(), "-1000");
    assert_eq!(value(types::STRING, "c2 40 42 0f 00").unwrap(), "1000000");
    // Compressed: 5 bytes that become 8: one as it is, and seven from one byte back.
    assert_eq!(value(types::STRING, "c3 04 08 00 'a' a0 00").unwrap(), "aaaaaaaa");

    let length = "a length has a form that does not exist: use another copy of the file";
    assert_eq!(value(types::STRING, "82 00").unwrap_err(), length);
    assert_eq!(
        value(types::STRING, "c4 00").unwrap_err(),
        "a string has an encoding that does not exist: use another copy of the file"
    );
    let ends = "the file ends too early: use another copy of the file, or copy it again";
    assert_eq!(value(types::STRING, "04 'abc'").unwrap_err(), ends);
    assert!(
        value(types::STRING, "81 ff ff ff ff ff ff ff ff 'abc'")
            .unwrap_err()
            .contains("longer than the engine can hold")
    );
    assert!(
        value(types::STRING, "c3 04 80 10 00 00 00 00 'a' e0 00 00").unwrap_err().contains("longer than it can be")
    );
}

/// A ziplist of these elements, which say themselves how long the one before is.
fn ziplist(elements: &[&str]) -> String {
    let len: usize = elements.iter().map(|element| bytes(element).len()).sum();
    let last = elements.last().map_or(0, |element| bytes(element).len());
    header(&[(len + 11, 4), (10 + len - last, 4), (elements.len(), 2)], elements)
}

/// A listpack of these elements, which say themselves how long they are.
fn listpack(elements: &[&str]) -> String {
    let len: usize = elements.iter().map(|element| bytes(element).len()).sum();
    header(&[(len + 7, 4), (elements.len(), 2)], elements)
}

/// Numbers with their widths, elements, and the byte that ends them.
fn header(numbers: &[(usize, usize)], elements: &[&str]) -> String {
    let numbers = numbers.iter().flat_map(|(number, width)| number.to_le_bytes().into_iter().take(*width));
    let numbers: Vec<String> = numbers.map(|byte| format!("{byte:02x}")).collect();
    format!("{} {} ff", numbers.join(" "), elements.join(" "))
}

#[test]
fn ziplist_has_every_form_of_element() {
    // The example of the documentation: 2 and 5 as they are, then a text.
    let example = "1c 00 00 00 0e 00 00 00 03 00 00 f3 02 f6 02 0b 'Hello World' ff";
    assert_eq!(example, ziplist(&["00 f3", "02 f6", "02 0b 'Hello World'"]));
    assert_eq!(packed(types::LIST_ZIPLIST, example).unwrap(), "2 5 Hello World");

    let numbers = ziplist(&[
        "00 fe 9c",
        "03 c0 18 fc",
        "04 f0 60 79 fe",
        "05 d0 00 ca 9a 3b",
        "06 e0 00 00 00 00 00 00 00 80",
        "0a fd",
        "02 f1",
    ]);
    let shown = "-100 -1000 -100000 1000000000 -9223372036854775808 12 0";
    assert_eq!(packed(types::LIST_ZIPLIST, &numbers).unwrap(), shown);

    // Texts with lengths of two and of five bytes, behind which it takes five bytes to say how long they were.
    let long = "x".repeat(300);
    for (head, len) in [("41 2c", "2f 01"), ("80 00 00 01 2c", "32 01")] {
        let list = ziplist(&[&format!("00 {head} '{long}'"), &format!("fe {len} 00 00 01 'y'")]);
        assert_eq!(packed(types::LIST_ZIPLIST, &list).unwrap(), format!("{long} y"));
        // More elements than can be counted.
        let uncounted = list.replacen("02 00 00", "ff ff 00", 1);
        assert_eq!(packed(types::LIST_ZIPLIST, &uncounted).unwrap(), format!("{long} y"));
    }
    let hash = ziplist(&["00 01 'a'", "03 f2", "02 01 'b'", "03 01 'c'"]);
    assert_eq!(packed(types::HASH_ZIPLIST, &hash).unwrap(), "a=1 b=c");
    let sorted = ziplist(&["00 01 'a'", "03 f2", "02 01 'b'", "03 03 '1.5'"]);
    assert_eq!(packed(types::ZSET_ZIPLIST, &sorted).unwrap(), "a=1 b=1.5");
}

#[test]
fn damaged_ziplist_is_refused() {
    let good = ziplist(&["00 f3", "02 f6", "02 0b 'Hello World'"]);
    for (wrong, why) in [
        (good.replacen("1c", "1d", 1), "its length"),
        (good.replacen("0e", "1c", 1), "its tail"),
        (good.replacen("03 00", "02 00", 1), "its count is too low"),
        (good.replacen("03 00", "04 00", 1), "its count is too high"),
        (good.replacen("02 f6", "03 f6", 1), "the length of the element before"),
        (good.replacen("02 0b", "02 0c", 1), "the length of the text"),
        (good.replacen("00 f3", "00 ff", 1), "an element that does not exist"),
    ] {
        let error = packed(types::LIST_ZIPLIST, &wrong).unwrap_err();
        assert!(error.starts_with("a ziplist is damaged"), "{why}: {error}");
    }
}

#[test]
fn listpack_has_every_form_of_element() {
    let list = listpack(&[
        "7f 01",
        "81 'a' 02",
        "df ff 02",
        "d0 00 02",
        "f1 18 fc 03",
        "f2 60 79 fe 04",
        "f3 00 ca 9a 3b 05",
        "f4 00 00 00 00 00 00 00 80 09",
    ]);
    let shown = "-1 -1000 -100000 -4096 -9223372036854775808 1000000000 127 a";
    assert_eq!(packed(types::SET_LISTPACK, &list).unwrap(), shown);

    // Texts with lengths of 12 and of 32 bits; they take two bytes to say how long they are.
    let long = "x".repeat(200);
    for (head, behind) in [("e0 c8", "01 ca"), ("f0 c8 00 00 00", "01 cd")] {
        let hash = listpack(&[&format!("{head} '{long}' {behind}"), "01 01"]);
        assert_eq!(packed(types::HASH_LISTPACK, &hash).unwrap(), format!("{long}=1"));
    }
    let sorted = listpack(&["81 'a' 02", "84 '-inf' 05", "81 'b' 02", "03 01"]);
    assert_eq!(packed(types::ZSET_LISTPACK, &sorted).unwrap(), "a=-inf b=3");
}

#[test]
fn damaged_listpack_is_refused() {
    let good = "0c 00 00 00 02 00 81 'a' 02 01 01 ff";
    assert_eq!(good, listpack(&["81 'a' 02", "01 01"]));
    assert_eq!(packed(types::HASH_LISTPACK, good).unwrap(), "a=1");
    for (wrong, why) in [
        (good.replacen("0c", "0b", 1), "its length"),
        (good.replacen("02 00", "01 00", 1), "its count is too low"),
        (good.replacen("02 00", "03 00", 1), "its count is too high"),
        (good.replacen("81 'a' 02", "81 'a' 03", 1), "the length behind an element"),
        (good.replacen("81 'a' 02", "f5 'a' 02", 1), "an element that does not exist"),
        (good.replacen("01 01 ff", "01 01 00", 1), "its end"),
    ] {
        let error = packed(types::HASH_LISTPACK, &wrong).unwrap_err();
        assert!(error.starts_with("a listpack is damaged"), "{why}: {error}");
    }
    let odd = packed(types::HASH_LISTPACK, &listpack(&["81 'a' 02"]));
    assert!(odd.unwrap_err().contains("half a pair"));
    let twice = packed(types::HASH_LISTPACK, &listpack(&["81 'a' 02", "01 01", "81 'a' 02", "01 01"]));
    assert!(twice.unwrap_err().contains("twice"));
}

#[test]
fn zipmap_and_set_of_integers_are_read() {
    // Three unused bytes behind the first value.
    assert_eq!(
        packed(types::HASH_ZIPMAP, "02 03 'foo' 03 03 'bar' 00 00 00 05 'hello' 05 00 'world' ff").unwrap(),
        "foo=bar hello=world"
    );
    assert_eq!(packed(types::HASH_ZIPMAP, "fe fe 01 00 00 00 'a' 00 00 ff").unwrap(), "a=");
    for wrong in ["02 01 'a' 01 00 'b' ff", "01 01 'a' 01 00 'b'", "01 01 'a' ff", "01 01 'a' 05 00 'b' ff", ""] {
        assert!(packed(types::HASH_ZIPMAP, wrong).unwrap_err().starts_with("a zipmap is damaged"), "{wrong}");
    }

    assert_eq!(packed(types::SET_INTSET, "02 00 00 00 03 00 00 00 fe ff 01 00 02 00").unwrap(), "-2 1 2");
    assert_eq!(packed(types::SET_INTSET, "04 00 00 00 01 00 00 00 00 ca 9a 3b").unwrap(), "1000000000");
    assert_eq!(
        packed(types::SET_INTSET, "08 00 00 00 01 00 00 00 00 00 00 00 00 00 00 80").unwrap(),
        "-9223372036854775808"
    );
    for wrong in [
        "02 00 00 00 03 00 00 00 fe ff 01 00",
        "03 00 00 00 01 00 00 00 00 00 00",
        "02 00 00 00 02 00 00 00 01 00 01 00",
    ] {
        assert!(packed(types::SET_INTSET, wrong).is_err(), "{wrong}");
    }
}

#[test]
fn quicklist_is_a_list_of_packed_nodes_and_large_elements() {
    let (ziplist, listpack) = (ziplist(&["00 f3", "02 f6"]), listpack(&["81 'a' 02"]));
    assert_eq!(value(types::LIST_QUICKLIST, &format!("02 0f {ziplist} 0f {ziplist}")).unwrap(), "2 5 2 5");
    assert_eq!(
        value(types::LIST_QUICKLIST_2, &format!("03 02 0a {listpack} 01 05 'plain' 02 0a {listpack}")).unwrap(),
        "a plain a"
    );
    assert!(value(types::LIST_QUICKLIST_2, "01 03 01 'x'").unwrap_err().contains("a form that does not exist"));
}

#[test]
fn scores_are_text_in_old_files_and_binary_in_newer_ones() {
    assert_eq!(
        value(types::ZSET, "04 01 'a' 04 '-1.5' 01 'b' fe 01 'c' ff 01 'd' 06 '1e-320'").unwrap(),
        format!("a=-1.5 b=inf c=-inf d={}", 1e-320)
    );
    assert_eq!(value(types::ZSET_2, "01 01 'a' 00 00 00 00 00 00 f8 3f").unwrap(), "a=1.5");
    for wrong in ["01 01 'a' fd", "01 01 'a' 03 'one'", "01 01 'a' 03 'nan'", "02 01 'a' 01 '1' 01 'a' 01 '2'"] {
        assert!(value(types::ZSET, wrong).is_err(), "{wrong}");
    }
}

/// A file of this version with these bytes behind its header, with a checksum where the version has one.
fn file(version: u32, notation: &str) -> Vec<u8> {
    let mut file = format!("REDIS{version:04}").into_bytes();
    file.extend(bytes(notation));
    file.push(0xff);
    if version >= 5 {
        let checksum = Crc64::of(&file).to_le_bytes();
        file.extend_from_slice(&checksum);
    }
    file
}

fn read_all(file: &[u8], unsupported: Unsupported) -> Result<(Vec<Shown>, ReadReport), String> {
    let options = ReadOptions { unsupported, ..ReadOptions::default() };
    let mut reader = Reader::open(file, options).map_err(|error| error.to_string())?;
    let mut records = Vec::new();
    while let Some(Record { database, key, expires_at_ms, touched, value }) =
        reader.next_record().map_err(|error| error.to_string())?
    {
        records.push((database, text(&key), expires_at_ms, touched, show(&value)));
    }
    assert!(reader.next_record().is_ok_and(|record| record.is_none()), "the end stays the end");
    Ok((records, reader.report().clone()))
}

#[test]
fn file_of_the_first_version_and_of_the_last_are_read() {
    let old = file(1, "fe 00 00 01 'a' 01 'x' fe 03 fd 01 00 00 00 00 01 'b' 01 'y'");
    let (records, report) = read_all(&old, Unsupported::Refuse).unwrap();
    let shown = |database, key: &str, deadline, touched, value: &str| {
        (database, key.to_owned(), deadline, touched, value.to_owned())
    };
    assert_eq!(records, [shown(0, "a", None, None, "x"), shown(3, "b", Some(1_000), None, "y")]);
    assert_eq!((report.version, report.is_checked, report.keys), (1, false, 2));

    let new = file(
        11,
        "fa 09 'redis-ver' 05 '7.2.4' f5 03 'lib' fe 00 fb 03 01 f4 01 02 00 \
         fc e8 03 00 00 00 00 00 00 f8 40 64 00 01 'a' 01 'x' \
         f9 07 12 01 'l' 01 02 0a 0a 00 00 00 01 00 81 'a' 02 ff 00 01 'b' 01 'y'",
    );
    let (records, report) = read_all(&new, Unsupported::Refuse).unwrap();
    assert_eq!(
        records,
        [
            shown(0, "a", Some(1_000), Some(Touched::IdleS(100)), "x"),
            shown(0, "l", None, Some(Touched::Frequency(7)), "a"),
            shown(0, "b", None, None, "y")
        ]
    );
    assert_eq!(report.facts, [(b"redis-ver".to_vec(), b"7.2.4".to_vec())]);
    assert_eq!((report.function_libraries, report.is_checked), (1, true));
}

#[test]
fn checksum_is_demanded_unless_the_file_says_that_there_is_none() {
    let mut bytes = file(9, "fe 00 00 01 'a' 01 'x'");
    let len = bytes.len();
    bytes[len - 1] ^= 1;
    let error = read_all(&bytes, Unsupported::Refuse).unwrap_err();
    assert!(error.starts_with("byte 25: its bytes have the checksum"), "{error}");
    bytes[len - 8..].fill(0);
    assert!(!read_all(&bytes, Unsupported::Refuse).unwrap().1.is_checked);
    assert!(read_all(&bytes[..len - 1], Unsupported::Refuse).unwrap_err().contains("ends too early"));
}

#[test]
fn what_is_no_file_of_a_known_version_is_refused_at_once() {
    for (file, wanted) in [
        (&b""[..], "byte 0: this is no RDB file"),
        (b"REDIS", "byte 5: this is no RDB file"),
        (b"REDIS00x1", "byte 9: this is no RDB file"),
        (b"*1\r\n$4\r\nPING\r\n", "byte 9: this is no RDB file"),
        (b"REDIS0000", "byte 9: RDB version 0 is not supported"),
        (b"REDIS0012", "byte 9: RDB version 12 is not supported, only 1 to 11: write the file with Redis 7.2 or older"),
    ] {
        let error = Reader::open(file, ReadOptions::default()).map(drop).unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{error}");
    }
}

#[test]
fn file_of_a_later_format_of_our_own_is_refused() {
    let error = read_all(&file(10, "fa 0d 'acteon-format' c0 02"), Unsupported::Skip).unwrap_err();
    assert!(error.contains("the file has format 2 of Acteon, and 1 is the last one known here"), "{error}");
    assert!(read_all(&file(10, "fa 0d 'acteon-format' c0 01"), Unsupported::Skip).is_ok());
}

/// A stream with one node, and a group with an entry that a consumer has not acknowledged.
fn stream(kind: u8) -> String {
    let id = "00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 02";
    let is_second = kind != types::STREAM;
    let more = if is_second { "01 02 00 00 01" } else { "" };
    let read = if is_second { "01" } else { "" };
    let active = if kind == types::STREAM_3 { "01 00 00 00 00 00 00 00" } else { "" };
    format!(
        "{kind:02x} 01 's' 01 10 {id} 07 07 00 00 00 00 00 ff 01 01 02 {more} 01 02 'gr' 01 02 {read} \
         01 {id} 01 00 00 00 00 00 00 00 01 01 02 'me' 01 00 00 00 00 00 00 00 {active} 01 {id}"
    )
}

#[test]
fn streams_and_modules_are_named_or_passed() {
    let module =
        "07 01 'm' 81 00 00 00 00 00 00 01 02 02 05 01 40 40 03 00 00 80 3f 04 00 00 00 00 00 00 00 00 05 03 'abc' 00";
    let aux = "f7 81 00 00 00 00 00 00 01 02 02 02 05 03 'aux' 00";
    for kind in [types::STREAM, types::STREAM_2, types::STREAM_3] {
        let file = file(11, &format!("fe 02 {aux} {} {module} {} 00 01 'a' 01 'x'", stream(kind), stream(kind)));
        let (records, report) = read_all(&file, Unsupported::Skip).unwrap();
        assert_eq!(records, [(2, "a".to_owned(), None, None, "x".to_owned())]);
        assert_eq!((report.streams, report.module_values, report.module_facts, report.keys), (2, 1, 1, 1));
    }
    let error = |notation: &str| read_all(&file(11, notation), Unsupported::Refuse).unwrap_err();
    assert_eq!(
        error(&format!("fe 02 {}", stream(types::STREAM_3))),
        "byte 14, key \"s\" of database 2: a stream cannot be held here: remove the key before the file is written, or skip such keys"
    );
    assert!(error(module).starts_with("byte 12, key \"m\" of database 0: a value of a module cannot be held"));
    assert!(error(aux).contains("what a module keeps besides values"));
    let old = read_all(&file(8, "06 01 'm' 00"), Unsupported::Skip).unwrap_err();
    assert!(old.contains("a value of a module cannot be held"), "{old}");
    assert!(error("18 01 'm' 00").contains("24 is no type of RDB"));
}

#[test]
fn collection_without_elements_is_passed_and_counted() {
    let (records, report) = read_all(&file(9, "01 01 'l' 00 04 01 'h' 00 00 01 's' 00"), Unsupported::Refuse).unwrap();
    assert_eq!((records.len(), report.empty_collections), (1, 2));
}

/// A file with every type, as it is written here.
fn written() -> Vec<u8> {
    let limits = Limits::default();
    let (mut list, mut set, mut integers, mut fields, mut members) =
        (List::new(), Set::new(), Set::new(), Fields::new(), Vec::new());
    for number in 0..30 {
        let word = format!("a word of moderate length, number {number}");
        list.push_back(word.as_bytes(), &limits);
        set.insert(word.as_bytes(), &limits);
        integers.insert((number * 1_000_003).to_string().as_bytes(), &limits);
        fields.insert(word.as_bytes(), b"12", &limits);
        members.push((word, f64::from(number) * 0.1));
    }
    let sorted = Zset::from_members(&members, &limits);
    let collections = [
        CollectionValue::List(list),
        CollectionValue::Set(set),
        CollectionValue::Set(integers),
        CollectionValue::Hash(fields),
        CollectionValue::SortedSet(sorted),
    ];
    let mut file = Vec::new();
    let mut writer = FileWriter::begin(&FileFacts { created_at_s: 1_700_000_000, used_memory_bytes: 5 }, &mut file);
    let start = file.len();
    write_select_database(0, &mut file);
    let touched = Some(Touched::IdleS(70_000));
    let text = b"so much for strings ".repeat(20);
    let string = RecordRef { key: b"string", value: ValueRef::Str(&text), expires_at_ms: Some(1 << 40), touched };
    write_record(&string, Compression::Lzf, &mut file);
    for (number, collection) in collections.iter().enumerate() {
        let key = format!("collection {number}");
        let value = ValueRef::Collection(collection);
        let touched = Some(Touched::Frequency(number as u8));
        let record = RecordRef { key: key.as_bytes(), value, expires_at_ms: None, touched };
        write_record(&record, Compression::Lzf, &mut file);
    }
    writer.add(&file[start..]);
    file.extend_from_slice(&writer.end());
    file
}

#[test]
fn written_file_is_read_back() {
    let (records, report) = read_all(&written(), Unsupported::Refuse).unwrap();
    assert_eq!((records.len(), report.keys, report.is_checked, report.version), (6, 6, true, 10));
    assert_eq!(records[0].2, Some(1 << 40));
    assert_eq!((records[0].3, records[5].3), (Some(Touched::IdleS(70_000)), Some(Touched::Frequency(4))));
    assert!(records[1].4.starts_with("a word of moderate length, number 0 a word"), "a list keeps its order");
    assert!(report.facts.contains(&(b"ctime".to_vec(), b"1700000000".to_vec())));
}

#[test]
fn file_cut_anywhere_ends_too_early() {
    let file = written();
    for len in (0..file.len()).step_by(7).chain(file.len() - 20..file.len()) {
        let error = read_all(&file[..len], Unsupported::Skip).unwrap_err();
        assert!(error.contains("ends too early") || len < 9 && error.contains("no RDB file"), "{len}: {error}");
    }
}

#[test]
fn file_with_wrong_bytes_is_refused_and_never_worse() {
    let file = written();
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for round in 0..3_000 {
        let mut wrong = file.clone();
        for _ in 0..1 + random() % 3 {
            let at = random() % wrong.len();
            wrong[at] ^= 1 + (random() % 255) as u8;
        }
        if wrong != file {
            assert!(read_all(&wrong, Unsupported::Skip).is_err(), "round {round}");
        }
    }
    for _ in 0..2_000 {
        // Behind a header and a type anything may come.
        let mut noise = b"REDIS0011".to_vec();
        noise.extend([random() as u8 % 26, 1, b'k']);
        noise.extend((0..random() % 200).map(|_| random() as u8));
        assert!(read_all(&noise, Unsupported::Skip).is_err());
    }
}

#[test]
fn length_that_is_only_claimed_costs_nothing() {
    // 4 GiB of which nothing comes, and as many elements as can be counted.
    assert!(value(types::STRING, "80 ff ff ff ff 'abc'").unwrap_err().contains("ends too early"));
    assert!(value(types::HASH, "81 7f ff ff ff ff ff ff ff 01 'a' 01 'b'").unwrap_err().contains("ends too early"));
    assert!(value(types::ZSET_2, "81 7f ff ff ff ff ff ff ff 01 'a'").unwrap_err().contains("ends too early"));
}

#[test]
fn input_that_fails_is_told_from_input_that_ends() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("the disk is gone"))
        }
    }
    let file = written();
    let input = std::io::BufReader::new(file[..100].chain(Failing));
    let mut reader = Reader::open(input, ReadOptions::default()).unwrap();
    let error = loop {
        match reader.next_record() {
            Ok(record) => assert!(record.is_some(), "the end was reached"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error.problem(), Problem::Io(_)) && error.offset() == 100, "{error}");
}

fn round_trip(value: &Value) -> Value {
    let mut bytes = Vec::new();
    write_value(ValueRef::from(value), Compression::Lzf, &mut bytes);
    bytes.extend_from_slice(b"rest");
    let mut input = &*bytes;
    let back = read_value(type_of(ValueRef::from(value)), &mut input, &Limits::default());
    assert_eq!(input, b"rest");
    back.unwrap()
}

#[test]
fn strings_come_back_whatever_form_they_were_written_in() {
    let long = b"to be or not to be, that is the question: ".repeat(500);
    for text in [
        &b""[..],
        b"0",
        b"-0",
        b"-1",
        b"127",
        b"128",
        b"-32768",
        b"32768",
        b"2147483647",
        b"2147483648",
        b"007",
        b"+1",
        b"a text of moderate length",
        &[b'x'; 63],
        &[b'x'; 64],
        &[0; 16_384],
        &long,
    ] {
        let Value::Str(back) = round_trip(&Value::Str(text.to_vec())) else { panic!("a string") };
        assert_eq!(back, text);
    }
}

#[test]
fn collections_come_back_in_both_sizes() {
    let limits = Limits::default();
    for count in [1, 100, 2_000] {
        let (mut list, mut set, mut integers, mut fields) = (List::new(), Set::new(), Set::new(), Fields::new());
        let mut members = Vec::new();
        for number in 0..count {
            let text = format!("member {number}");
            list.push_back(text.as_bytes(), &limits);
            set.insert(text.as_bytes(), &limits);
            integers.insert(number.to_string().as_bytes(), &limits);
            fields.insert(text.as_bytes(), number.to_string().as_bytes(), &limits);
            members.push((text, f64::from(number) / 3.0));
        }
        let sorted = Zset::from_members(&members, &limits);

        let Value::Collection(CollectionValue::List(back)) =
            round_trip(&Value::Collection(CollectionValue::List(list.clone())))
        else {
            panic!()
        };
        assert!(back.iter().eq(list.iter()));
        for set in [set, integers] {
            let Value::Collection(CollectionValue::Set(back)) =
                round_trip(&Value::Collection(CollectionValue::Set(set.clone())))
            else {
                panic!()
            };
            assert_eq!((back.len(), back.encoding()), (set.len(), set.encoding()));
            assert!(set.iter().all(|member| back.contains(&member)));
        }
        let Value::Collection(CollectionValue::Hash(back)) =
            round_trip(&Value::Collection(CollectionValue::Hash(fields.clone())))
        else {
            panic!()
        };
        assert!(back.iter().eq(fields.iter()));
        let Value::Collection(CollectionValue::SortedSet(back)) =
            round_trip(&Value::Collection(CollectionValue::SortedSet(sorted.clone())))
        else {
            panic!()
        };
        assert!(back.iter().eq(sorted.iter()) && back.encoding() == sorted.encoding());
    }
}
