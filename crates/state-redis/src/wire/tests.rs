//! A connection as its callers see it, over a pipe whose other end is the server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, duplex};
use tokio::task::{JoinHandle, coop};
use tokio::time::{Instant, sleep, timeout};

use super::{Cmd, Failure, Farewell, OUT_BYTES_MAX, Outcome, Pipeline, Request, ServerError, Value, Wire};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";

fn connected(room: usize) -> (Wire, DuplexStream, JoinHandle<()>) {
    let (ours, theirs) = duplex(room);
    let (wire, pump) = Wire::new(ours, Arc::new(|_| {}), true);
    (wire, theirs, tokio::spawn(pump))
}

async fn until_read(theirs: &mut DuplexStream, expected: &[u8]) {
    let mut bytes = vec![0; expected.len()];
    theirs.read_exact(&mut bytes).await.unwrap();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn calls_of_many_tasks_leave_together_and_each_gets_its_answer() {
    let (wire, mut theirs, _pump) = connected(1 << 20);
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let wire = wire.clone();
            tokio::spawn(async move {
                let mut cmd = Cmd::new("ECHO");
                cmd.number(number);
                wire.call(Request::One(&cmd), None).await.unwrap()
            })
        })
        .collect();
    let serve = async {
        let (mut seen, mut answered) = (Vec::new(), 0);
        while answered < 100 {
            theirs.read_buf(&mut seen).await.unwrap();
            let text = String::from_utf8(seen.clone()).unwrap();
            let numbers: Vec<&str> = text.lines().skip(4).step_by(5).collect();
            for number in &numbers[answered..] {
                theirs.write_all(format!(":{number}\r\n").as_bytes()).await.unwrap();
            }
            answered = numbers.len();
        }
    };
    serve.await;
    for (number, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap(), Value::Int(number));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_ends_at_its_deadline_and_its_late_answer_is_nobody_s() {
    let (wire, mut theirs, _pump) = connected(1 << 10);
    let (ping, begin) = (Cmd::new("PING"), Instant::now());
    let far = wire.call(Request::One(&ping), Some(begin + Duration::from_secs(60)));
    let near = wire.call(Request::One(&ping), Some(begin + Duration::from_secs(2)));
    let (far, ()) = tokio::join!(far, async {
        assert!(matches!(near.await, Err(Failure::TimedOut)));
        assert_eq!(begin.elapsed(), Duration::from_secs(2));
        until_read(&mut theirs, &PING.repeat(2)).await;
        theirs.write_all(b":1\r\n:2\r\n").await.unwrap();
    });
    assert_eq!(far.unwrap(), Value::Int(1));
    let third = wire.call(Request::One(&ping), None);
    let (third, ()) = tokio::join!(third, async {
        until_read(&mut theirs, PING).await;
        theirs.write_all(b":3\r\n").await.unwrap();
    });
    assert_eq!(third.unwrap(), Value::Int(3));
}

#[tokio::test]
async fn an_end_of_the_connection_tells_who_was_sent_and_who_was_not() {
    let (wire, mut theirs, pump) = connected(1 << 10);
    let ping = Cmd::new("PING");
    let (lost, ()) = tokio::join!(wire.call(Request::One(&ping), None), async {
        until_read(&mut theirs, PING).await;
        drop(theirs);
    });
    assert!(matches!(lost, Err(Failure::Lost(_))) && wire.is_broken());
    assert!(matches!(wire.call(Request::One(&ping), None).await, Err(Failure::NotSent(Some(_)))));
    pump.await.unwrap();
}

#[tokio::test]
async fn a_pump_that_is_stopped_ends_all_calls() {
    let (wire, mut theirs, pump) = connected(1 << 10);
    let ping = Cmd::new("PING");
    let (lost, ()) = tokio::join!(wire.call(Request::One(&ping), None), async {
        until_read(&mut theirs, PING).await;
        pump.abort();
    });
    assert!(matches!(lost, Err(Failure::Lost(_))));
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let (wire, mut theirs, pump) = connected(1 << 10);
    theirs.write_all(b"+OK\r\n").await.unwrap();
    pump.await.unwrap();
    assert!(wire.is_broken());
}

#[tokio::test]
async fn an_error_that_comes_unasked_is_told_to_whoever_would_ask() {
    let (wire, mut theirs, _pump) = connected(1 << 10);
    theirs.write_all(b"-ERR max number of clients reached\r\n").await.unwrap();
    let why = match wire.call(Request::One(&Cmd::new("PING")), None).await {
        Err(Failure::NotSent(Some(why)) | Failure::Lost(why)) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(Farewell::of(&why), Some(&ServerError::new("ERR max number of clients reached")));
}

#[tokio::test(start_paused = true)]
async fn requests_wait_for_room_and_time_out_unsent() {
    let (wire, mut theirs, _pump) = connected(64);
    let mut large = Cmd::new("SET");
    large.arg(vec![b'x'; OUT_BYTES_MAX]);
    let (ping, soon) = (Cmd::new("PING"), Instant::now() + Duration::from_secs(1));
    // The first is being written, the second fills what may wait.
    let [first, second] = [(); 2].map(|()| {
        let (wire, large) = (wire.clone(), large.clone());
        tokio::spawn(async move { wire.call(Request::One(&large), None).await })
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(matches!(wire.call(Request::One(&ping), Some(soon)).await, Err(Failure::NotSent(None))));
    let patient = wire.call(Request::One(&ping), None);
    let serve = async {
        let mut rest = vec![0; 1 << 16];
        let mut tail = Vec::new();
        while !tail.ends_with(PING) {
            let read = theirs.read(&mut rest).await.unwrap();
            tail = [&tail[tail.len().saturating_sub(PING.len())..], &rest[..read]].concat();
        }
        theirs.write_all(b":1\r\n:2\r\n:3\r\n").await.unwrap();
        while theirs.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    };
    tokio::select! {
        answer = patient => assert_eq!(answer.unwrap(), Value::Int(3)),
        () = serve => unreachable!("the pump holds the other end"),
    }
    assert_eq!(first.await.unwrap().unwrap(), Value::Int(1));
    assert_eq!(second.await.unwrap().unwrap(), Value::Int(2));
}

#[tokio::test]
async fn messages_reach_their_receiver_in_between() {
    let (ours, mut theirs) = duplex(1 << 10);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let receiver = seen.clone();
    let (wire, pump) = Wire::new(ours, Arc::new(move |push| receiver.lock().push(push.to_vec())), true);
    let _pump = tokio::spawn(pump);
    let mut subscribe = Cmd::new("SUBSCRIBE");
    subscribe.arg("a");
    let pings: Pipeline = [&Cmd::new("PING"), &Cmd::new("PING")].into_iter().collect();
    let said = async {
        until_read(&mut theirs, b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n").await;
        until_read(&mut theirs, &PING.repeat(2)).await;
        theirs
            .write_all(b">2\r\n$7\r\nmessage\r\n:1\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n:7\r\n-ERR x\r\n")
            .await
            .unwrap();
    };
    let confirmed = wire.call(Request::Confirmed(&subscribe, 1), None);
    let (confirmed, replies, ()) = tokio::join!(confirmed, wire.ask(&pings), said);
    assert_eq!(confirmed.unwrap(), Value::Nil);
    assert_eq!(replies.unwrap(), [Value::Int(7), Value::ServerError(ServerError::new("ERR x"))]);
    assert_eq!(*seen.lock(), [[Value::BulkString(b"message".to_vec()), Value::Int(1)]]);
}

fn echo(text: &str) -> Cmd {
    let mut cmd = Cmd::new("ECHO");
    cmd.arg(text);
    cmd
}

/// A server that takes nothing more, and the call that it was given last. What comes after it waits to be written.
async fn stuck() -> (Wire, DuplexStream, JoinHandle<()>, JoinHandle<Outcome>) {
    let (wire, theirs, pump) = connected(64);
    let last = tokio::spawn({
        let wire = wire.clone();
        async move { wire.call(Request::One(&echo(&"x".repeat(100))), None).await }
    });
    sleep(Duration::from_millis(1)).await;
    (wire, theirs, pump, last)
}

#[tokio::test(start_paused = true)]
async fn whose_time_is_over_and_who_has_left_before_the_request_was_written_sends_nothing() {
    let (wire, mut theirs, _pump, last) = stuck().await;
    let soon = Instant::now() + Duration::from_secs(1);
    assert!(matches!(wire.call(Request::One(&echo("late")), Some(soon)).await, Err(Failure::NotSent(None))));
    assert!(timeout(Duration::from_secs(1), wire.call(Request::One(&echo("left")), None)).await.is_err());
    let ping = Cmd::new("PING");
    let (answer, ()) = tokio::join!(wire.call(Request::One(&ping), None), async {
        let mut rest = vec![0; 122];
        theirs.read_exact(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"x\r\n"), "{rest:?}");
        until_read(&mut theirs, PING).await;
        theirs.write_all(b":1\r\n:2\r\n").await.unwrap();
    });
    assert_eq!((answer.unwrap(), last.await.unwrap().unwrap()), (Value::Int(2), Value::Int(1)));
}

#[tokio::test(start_paused = true)]
async fn what_was_not_written_when_the_connection_ended_was_not_sent() {
    let (wire, _theirs, pump, last) = stuck().await;
    let ping = Cmd::new("PING");
    let (waits, ()) = tokio::join!(wire.call(Request::One(&ping), None), async { pump.abort() });
    assert!(matches!(waits, Err(Failure::NotSent(Some(_)))), "{waits:?}");
    assert!(matches!(last.await.unwrap(), Err(Failure::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn room_that_others_have_left_is_given_to_those_who_wait_for_it() {
    let (wire, mut theirs, _pump, _last) = stuck().await;
    let large = echo(&"y".repeat(OUT_BYTES_MAX));
    let ping = Cmd::new("PING");
    let soon = Instant::now() + Duration::from_secs(1);
    let (late, (), answer) = tokio::join!(
        wire.call(Request::One(&large), Some(soon)),
        async {
            sleep(Duration::from_secs(2)).await;
            theirs.read_exact(&mut [0; 122]).await.unwrap();
            until_read(&mut theirs, PING).await;
            theirs.write_all(b":1\r\n:2\r\n").await.unwrap();
        },
        wire.call(Request::One(&ping), None),
    );
    assert!(matches!(late, Err(Failure::NotSent(None))), "{late:?}");
    assert_eq!(answer.unwrap(), Value::Int(2));
}

#[tokio::test(start_paused = true)]
async fn a_request_of_nothing_is_answered_at_once_and_takes_nobody_s_answer() {
    let (wire, mut theirs, _pump) = connected(1 << 10);
    let (ping, nothing) = (Cmd::new("PING"), Pipeline::default());
    let asked = async {
        tokio::join!(wire.call(Request::All(&nothing), None), wire.call(Request::One(&ping), None), async {
            until_read(&mut theirs, PING).await;
            theirs.write_all(b":1\r\n").await.unwrap();
        })
    };
    let (none, pong, ()) = timeout(Duration::from_secs(60), asked).await.expect("both have their answers");
    assert_eq!([none.unwrap(), pong.unwrap()], [Value::Array(Vec::new()), Value::Int(1)]);
    assert_eq!(wire.call(Request::Confirmed(&ping, 0), None).await.unwrap(), Value::Nil);
}

#[tokio::test]
async fn answers_that_came_before_what_is_none_count() {
    let (wire, mut theirs, pump) = connected(1 << 10);
    let ping = Cmd::new("PING");
    let (answered, lost, ()) =
        tokio::join!(wire.call(Request::One(&ping), None), wire.call(Request::One(&ping), None), async {
            until_read(&mut theirs, &PING.repeat(2)).await;
            theirs.write_all(b":1\r\nHTTP/1.1 400\r\n").await.unwrap();
        });
    assert_eq!(answered.unwrap(), Value::Int(1));
    assert!(matches!(lost, Err(Failure::Lost(_))));
    pump.await.unwrap();
}

/// A stream whose second write fails, with an answer that arrived a moment before.
#[derive(Default)]
struct BreaksAfterAnswer {
    writes: usize,
    is_answered: bool,
}

impl AsyncRead for BreaksAfterAnswer {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.writes < 2 {
            // Whoever writes comes along here again.
            return Poll::Pending;
        }
        if !self.is_answered {
            self.is_answered = true;
            bytes.put_slice(b":1\r\n");
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for BreaksAfterAnswer {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes += 1;
        Poll::Ready(if self.writes == 1 { Ok(bytes.len()) } else { Err(io::ErrorKind::BrokenPipe.into()) })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_came_before_writing_failed_count() {
    let (wire, pump) = Wire::new(BreaksAfterAnswer::default(), Arc::new(|_| {}), true);
    let _pump = tokio::spawn(pump);
    let ping = Cmd::new("PING");
    let (answered, lost) = tokio::join!(wire.call(Request::One(&ping), None), async {
        sleep(Duration::from_millis(1)).await;
        wire.call(Request::One(&ping), None).await
    });
    assert_eq!(answered.unwrap(), Value::Int(1));
    assert!(matches!(lost, Err(Failure::Lost(_))), "{lost:?}");
}

/// A stream that uses up what tokio lets a task do in one turn, once it is told to.
struct Greedy {
    stream: DuplexStream,
    is_told: Arc<AtomicBool>,
}

impl AsyncRead for Greedy {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.is_told.swap(false, Ordering::Relaxed) {
            while let Poll::Ready(progress) = coop::poll_proceed(cx) {
                progress.made_progress();
            }
        }
        Pin::new(&mut self.stream).poll_read(cx, bytes)
    }
}

impl AsyncWrite for Greedy {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A timer that is polled by a task without budget keeps no waker: it was set, and rang for nobody.
#[tokio::test(start_paused = true)]
async fn deadlines_are_kept_though_the_budget_was_used_up_when_the_alarm_was_set() {
    let ((ours, _theirs), is_told) = (duplex(1 << 10), Arc::new(AtomicBool::new(false)));
    let (wire, pump) = Wire::new(Greedy { stream: ours, is_told: is_told.clone() }, Arc::new(|_| {}), true);
    let _pump = tokio::spawn(pump);
    sleep(Duration::from_millis(1)).await;
    is_told.store(true, Ordering::Relaxed);
    let (ping, begin) = (Cmd::new("PING"), Instant::now());
    let call = wire.call(Request::One(&ping), Some(begin + Duration::from_secs(2)));
    let outcome = timeout(Duration::from_secs(60), call).await.expect("the call ends at its deadline");
    assert!(matches!(outcome, Err(Failure::TimedOut)), "{outcome:?}");
    assert_eq!(begin.elapsed(), Duration::from_secs(2));
}
