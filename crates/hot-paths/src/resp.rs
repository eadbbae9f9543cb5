//! The Redis protocol: requests as pipelining clients send them, and the replies to them.

use std::hint::black_box;

use acteon_resp::{Arguments, Protocol, ReplyWriter, RequestDecoder, RequestLimits, write_request};

use crate::meter::{must, repeat};
use crate::{Outcome, Path};

pub(crate) const PATHS: &[Path] = &[
    Path { name: "resp-decode-16-get", run: decode_get },
    Path { name: "resp-decode-16-set", run: decode_set },
    Path { name: "resp-write-16-replies", run: write_replies },
];

/// Requests of one operation: redis-benchmark's usual pipeline.
const PIPELINE: usize = 16;
const VALUE: &[u8] = &[b'x'; 64];

fn decode_get() -> Outcome {
    decode(|key| vec![b"GET".to_vec(), key])
}

fn decode_set() -> Outcome {
    decode(|key| vec![b"SET".to_vec(), key, VALUE.to_vec()])
}

fn decode(request: impl Fn(Vec<u8>) -> Vec<Vec<u8>>) -> Outcome {
    let mut input = Vec::new();
    for at in 0..PIPELINE {
        write_request(&mut input, &request(format!("key:{at:012}").into_bytes()));
    }
    let (mut decoder, limits, mut args) = (RequestDecoder::new(), RequestLimits::default(), Arguments::default());
    repeat(|_| {
        let (mut rest, mut requests) = (black_box(&input[..]), 0);
        while let Some(bytes) = must(decoder.decode(rest, &limits, &mut args)) {
            args.iter(rest).for_each(|arg| _ = black_box(arg));
            rest = &rest[bytes..];
            requests += 1;
        }
        assert_eq!(requests, PIPELINE);
    });
    Ok(())
}

/// Four of each: a status, an integer, a value, and nothing.
fn write_replies() -> Outcome {
    let mut out = Vec::new();
    repeat(|turn| {
        out.clear();
        let mut reply = ReplyWriter::new(&mut out, Protocol::Resp2);
        for _ in 0..PIPELINE / 4 {
            reply.simple("OK");
            reply.integer(i64::from(turn));
            reply.bulk(black_box(VALUE));
            reply.null();
        }
        assert!(!black_box(&out).is_empty());
    });
    Ok(())
}
