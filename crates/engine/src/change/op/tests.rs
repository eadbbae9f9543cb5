//! Changes and their bytes, in both directions.

use proptest::collection::vec;
use proptest::prelude::any;
use proptest::{prop_assert, proptest};

use super::{Change, Op, Ops};
use crate::change::{Problem, Recorder, check_group};
use crate::entry::Kind;

const ALL: [Op<'static>; 26] = [
    Op::SetStr { expires_at_ms: Some(u64::MAX), value: b"value" },
    Op::SetRange { at: 1 << 40, bytes: b"bytes" },
    Op::Append(b"tail"),
    Op::Remove,
    Op::SetDeadline(Some(7)),
    Op::PutWhole { expires_at_ms: None, value: b"\0\x05value" },
    Op::Create(Kind::SortedSet),
    Op::MoveTo { database: 300, key: b"other" },
    Op::PushFront(b""),
    Op::PushBack(b"element"),
    Op::PopFront(1),
    Op::PopBack(u64::MAX),
    Op::SetAt { index: -1, element: b"e" },
    Op::InsertBefore { pivot: b"p", element: b"e" },
    Op::InsertAfter { pivot: b"p", element: b"e" },
    Op::RemoveEqual { count: i64::MIN, element: b"e" },
    Op::Trim { start: 3, len: 127 },
    Op::SetField { field: b"f", value: b"v" },
    Op::RemoveField(b"f"),
    Op::AddMember(b"m"),
    Op::RemoveMember(b"m"),
    Op::SetScore { member: b"m", score: f64::NEG_INFINITY },
    Op::RemoveScored(b"m"),
    Op::RemoveRanks { start: 128, len: 300 },
    Op::ClearDatabase,
    Op::SwapDatabases(15),
];

fn written(ops: &[Op<'_>]) -> Vec<u8> {
    let mut recorder = Recorder::default();
    recorder.set_on(true);
    ops.iter().enumerate().for_each(|(number, op)| recorder.record(number % 3 / 2, b"key", op));
    let mut group = Vec::new();
    recorder.drain_into(&mut group);
    group
}

#[test]
fn every_change_reads_back_as_it_was_written() {
    let group = written(&ALL);
    let read: Vec<_> = Ops::new(&group).map(|change| change.expect("it was written")).collect();
    let expected: Vec<_> = ALL
        .iter()
        .enumerate()
        .map(|(number, op)| Change { database: number % 3 / 2, key: b"key".as_slice(), op: *op })
        .collect();
    assert_eq!(read, expected);
    assert_eq!(check_group(&group), Ok(ALL.len()));
}

/// Journals keep these bytes: a change of layout has to take a new code, or they could not be read any more.
#[test]
fn layout_is_what_it_has_always_been() {
    let text: String = written(&ALL).iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: Vec<&str> = text.as_bytes().chunks(100).map(|line| std::str::from_utf8(line).expect("digits")).collect();
    assert_eq!(
        lines,
        [
            "0100036b657901ffffffffffffffff0576616c7565828080808080200562797465730301036b6579047461696c0400036b65",
            "79850107000000000000000601036b6579000700000000000000000576616c75650700036b65790388ac02056f7468657210",
            "01036b6579001100036b657907656c656d656e7492011301036b6579ffffffffffffffffff011400036b6579ffffffffffff",
            "ffff016595017001651601036b6579017001651700036b65790000000000000080016598037f2001036b6579016601762100",
            "036b65790166a8016d2901036b6579016d3000036b6579016d000000000000f0ffb1016d3201036b65798001ac024000036b",
            "6579c10f",
        ]
    );
}

#[test]
fn group_that_is_cut_off_within_a_change_is_refused_with_its_place() {
    for op in ALL {
        let mut recorder = Recorder::default();
        recorder.set_on(true);
        recorder.record(0, b"a", &Op::Remove);
        let start = recorder.len();
        recorder.record(0, b"key", &op);
        let mut group = Vec::new();
        recorder.drain_into(&mut group);
        for len in start + 1..group.len() {
            let error = check_group(&group[..len]).expect_err("it is incomplete");
            assert_eq!((error.number, error.offset, error.problem), (1, start, Problem::Truncated), "{op:?}");
        }
    }
}

#[test]
fn what_no_version_has_written_is_refused() {
    for group in [&b"\x7f\0\0"[..], b"\x81\0\0", b"\x04\xff\xff\xff\x7f\0", b"\x07\0\x01k\0", b"\x07\0\x01k\x05"] {
        assert!(check_group(group).is_err(), "{group:?}");
    }
    let nan = written(&[Op::SetScore { member: b"m", score: f64::NAN }]);
    assert!(check_group(&nan).is_err());
    assert!(check_group(b"\x02\0\x01k\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\0").is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in vec(any::<u8>(), 0..60), flips in vec((any::<usize>(), any::<u8>()), 1..4)) {
        let _ = check_group(&bytes);
        let mut group = written(&ALL);
        for (at, byte) in flips {
            let at = at % group.len();
            group[at] ^= byte;
        }
        prop_assert!(check_group(&group).is_err_and(|error| error.offset < group.len()) || check_group(&group).is_ok());
    }
}
