//! From the service's error codes and the client library's failures to kind, effect and advice.
//!
//! # Effects
//! An answer of the 400 family means that nothing was changed: [`NotApplied`](Effect::NotApplied). So does a connection that
//! could not be opened. A connection that breaks, an answer that does not come in time, and an answer of the 500 family leave a
//! write [`Unknown`](Effect::Unknown): AWS says of them that the write may have been made. A read changes nothing either way.
//!
//! # Secrets
//! Of an answer only its code, its cut message and the number that AWS support asks for are kept: the whole of it can hold
//! stored items. Messages name roles and tables, never keys.

use std::error::Error as StdError;

use acteon_state_core::{Effect, Error, ErrorKind};
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_dynamodb::types::ThrottlingReason;
use aws_sdk_dynamodb::types::error::{
    ProvisionedThroughputExceededException, RequestLimitExceeded, ThrottlingException,
};
use aws_smithy_runtime_api::client::result::DispatchFailure;
use aws_smithy_runtime_api::http::Response;

/// The backend's name in errors and configuration.
pub(crate) const BACKEND: &str = "dynamodb";

/// Whether a request can change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

impl Access {
    /// The effect of a request that was sent and whose answer is missing.
    pub(crate) const fn unanswered(self) -> Effect {
        match self {
            Self::Read => Effect::NotApplied,
            Self::Write => Effect::Unknown,
        }
    }
}

/// What an error code means to us.
struct Meaning {
    code: &'static str,
    /// A part of the message, where one code says many things; empty for all others of that code.
    phrase: &'static str,
    kind: ErrorKind,
    /// Whether a write may have been made all the same.
    is_open: bool,
    /// What is behind it and what to do; empty where the service's words are enough.
    advice: &'static str,
}

const fn refused(code: &'static str, kind: ErrorKind, advice: &'static str) -> Meaning {
    Meaning { code, phrase: "", kind, is_open: false, advice }
}

const fn open(code: &'static str, kind: ErrorKind, advice: &'static str) -> Meaning {
    Meaning { code, phrase: "", kind, is_open: true, advice }
}

const fn invalid(phrase: &'static str, kind: ErrorKind, advice: &'static str) -> Meaning {
    Meaning { code: "ValidationException", phrase, kind, is_open: false, advice }
}

const UNKNOWN_KEY: &str = "the access key is not known here: check the credentials, the profile and the region; temporary ones \
                           also need their session token";
const EXPIRED: &str = "the credentials have expired: whatever provides them must renew them";
const BAD_SIGNATURE: &str = "the secret key does not belong to the access key, or this machine's clock is more than five minutes \
                             off: check both";
const NO_TABLE: &str = "the table does not exist in this region and account: run `acteon-server migrate`, set \
                        migrate = \"auto\", or correct table_name and region";
const OTHER_TABLE: &str = "the table has another key or index than this program needs: set another table_name, or run \
                           `acteon-server migrate --check` to see what differs";
const THROTTLED: &str = "the service asks for fewer requests";
const ABOVE_LIMIT: &str = "above a limit of DynamoDB";
const BUSY_ITEM: &str = "another transaction or write was changing the same item";

/// Every code that is treated apart. Of several rows with one code the first whose phrase occurs counts.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
static CODES: [Meaning; 42] = [
    refused("AccessDenied", ErrorKind::Denied, "allow this action on the table and on its index"),
    refused("AccessDeniedException", ErrorKind::Denied, "allow this action on the table and on its index"),
    refused("UnrecognizedClientException", ErrorKind::Denied, UNKNOWN_KEY),
    refused("InvalidClientTokenId", ErrorKind::Denied, UNKNOWN_KEY),
    refused("MissingAuthenticationToken", ErrorKind::Denied, "the request was not signed: provide credentials"),
    refused(
        "MissingAuthenticationTokenException",
        ErrorKind::Denied,
        "the request was not signed: provide credentials",
    ),
    refused("ExpiredToken", ErrorKind::Denied, EXPIRED),
    refused("ExpiredTokenException", ErrorKind::Denied, EXPIRED),
    refused("InvalidSignatureException", ErrorKind::Denied, BAD_SIGNATURE),
    refused("SignatureDoesNotMatch", ErrorKind::Denied, BAD_SIGNATURE),
    refused("IncompleteSignatureException", ErrorKind::Denied, BAD_SIGNATURE),
    refused(
        "RequestExpired",
        ErrorKind::Denied,
        "this machine's clock is off, or the request took very long to arrive",
    ),
    refused("OptInRequired", ErrorKind::Denied, "the account is not signed up for DynamoDB in this region"),
    refused("ResourceNotFoundException", ErrorKind::Config, NO_TABLE),
    refused("TableNotFoundException", ErrorKind::Config, NO_TABLE),
    refused("IndexNotFoundException", ErrorKind::Config, OTHER_TABLE),
    refused("ResourceInUseException", ErrorKind::Unavailable, "the table is being created, changed or removed"),
    refused("LimitExceededException", ErrorKind::Throttled, "too many tables or indexes are being changed at once"),
    refused("ProvisionedThroughputExceededException", ErrorKind::Throttled, THROTTLED),
    refused("RequestLimitExceeded", ErrorKind::Throttled, THROTTLED),
    refused("Throttling", ErrorKind::Throttled, THROTTLED),
    refused("ThrottlingException", ErrorKind::Throttled, THROTTLED),
    refused("ThrottledException", ErrorKind::Throttled, THROTTLED),
    refused("ItemCollectionSizeLimitExceededException", ErrorKind::TooLarge, ABOVE_LIMIT),
    refused("TransactionConflictException", ErrorKind::Contended, BUSY_ITEM),
    refused("TransactionCanceledException", ErrorKind::Contended, BUSY_ITEM),
    refused("ReplicatedWriteConflictException", ErrorKind::Contended, "another region was changing the same item"),
    // The first request with this token is still at work.
    open("TransactionInProgressException", ErrorKind::Contended, "the same transaction is still under way"),
    refused("IdempotentParameterMismatchException", ErrorKind::Internal, "two transactions carry the same token"),
    refused(
        "ConditionalCheckFailedException",
        ErrorKind::Internal,
        "the service refused a condition that was not asked",
    ),
    refused("SerializationException", ErrorKind::Internal, "the service could not read the request"),
    refused(
        "UnknownOperationException",
        ErrorKind::Unsupported,
        "the endpoint does not know this operation: is it DynamoDB?",
    ),
    open("InternalServerError", ErrorKind::Unavailable, "a fault on the service's side"),
    open("InternalFailure", ErrorKind::Unavailable, "a fault on the service's side"),
    open("ServiceUnavailable", ErrorKind::Unavailable, "the service is not available at the moment"),
    open("ServiceUnavailableException", ErrorKind::Unavailable, "the service is not available at the moment"),
    invalid("tem size", ErrorKind::TooLarge, ABOVE_LIMIT),
    invalid("maximum size limit", ErrorKind::TooLarge, ABOVE_LIMIT),
    invalid("umber overflow", ErrorKind::Overflow, "a number is out of DynamoDB's range"),
    invalid("does not match the schema", ErrorKind::Config, OTHER_TABLE),
    invalid("does not have the specified index", ErrorKind::Config, OTHER_TABLE),
    refused("ValidationException", ErrorKind::Internal, "the service refused the request as malformed"),
];

/// An answer of the 500 family without a code that is listed, from the service or a proxy in front of it.
const FAULT: Meaning = open("", ErrorKind::Unavailable, "");
/// Any other answer that is not listed.
const UNLISTED: Meaning = refused("", ErrorKind::Internal, "");

/// What a reason for throttling ends with, what is throttled, and what to do.
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/throttling-diagnosing.html>
const THROTTLING_REASONS: [(&str, &str); 4] = [
    (
        "KeyRangeThroughputExceeded",
        "hot key: one partition gets more than its 1,000 write or 3,000 read units a second; spread the load over more keys, list \
         the kind in point_kinds, or use more shards",
    ),
    (
        "ProvisionedThroughputExceeded",
        "table: its provisioned capacity is used up; raise it, let it scale by itself, or change the table to on-demand",
    ),
    (
        "MaxOnDemandThroughputExceeded",
        "table: the maximum set for its on-demand capacity is reached; raise or remove it",
    ),
    ("AccountLimitExceeded", "account: its quota for one table in this region is reached; ask AWS to raise it"),
];

/// The longest text of the service that is repeated in an error.
const TEXT_CHARS_MAX: usize = 300;

/// The error of the client library, as ours.
pub(crate) fn classify<E>(error: SdkError<E, Response>, access: Access) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let ours = match error {
        SdkError::ServiceError(failed) => from_answer(failed.err(), failed.raw().status().as_u16(), access),
        SdkError::DispatchFailure(failure) => from_dispatch(&failure, access),
        SdkError::TimeoutError(_) => {
            Error::new(ErrorKind::Timeout, "no answer within operation_timeout").with_effect(access.unanswered())
        }
        SdkError::ResponseError(failed) => {
            let status = failed.raw().status().as_u16();
            let message =
                format!("the answer (HTTP status {status}) broke off or cannot be read: is the endpoint DynamoDB?");
            Error::new(ErrorKind::Unavailable, message).with_effect(access.unanswered())
        }
        SdkError::ConstructionFailure(failure) => {
            let message = format!("the request cannot be made: {}", innermost(&as_source(failure)));
            Error::new(ErrorKind::Internal, message)
        }
        // None is known; nothing can be said about its effect.
        _ => Error::new(ErrorKind::Internal, "the AWS client failed in a way that it did not know before")
            .with_effect(access.unanswered()),
    };
    ours.on_backend(BACKEND)
}

/// The store was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed").on_backend(BACKEND)
}

/// A refusal by the service.
fn from_answer<E: ProvideErrorMetadata + StdError + 'static>(error: &E, status: u16, access: Access) -> Error {
    let text = error.message().unwrap_or_default();
    let meaning = meaning(error.code(), text, status);
    let mut message = cut(text);
    if message.is_empty() {
        message = "the service refused without a word".to_owned();
    }
    let reasons = throttling_reasons(error);
    let advice = reasons.iter().find_map(|reason| throttling_advice(reason)).unwrap_or(meaning.advice);
    message.push_str(&match error.code() {
        Some(code) => format!(" ({code}"),
        None => format!(" (HTTP status {status}"),
    });
    if !reasons.is_empty() {
        message.push_str(&format!(": {}", reasons.join(", ")));
    }
    if let Some(request_id) = error.meta().extra("aws_request_id") {
        message.push_str(&format!(", request {}", cut(request_id)));
    }
    message.push(')');
    if !advice.is_empty() {
        message.push_str(&format!("; {advice}"));
    }
    let effect = if meaning.is_open { access.unanswered() } else { Effect::NotApplied };
    Error::new(meaning.kind, message).with_effect(effect)
}

fn meaning(code: Option<&str>, text: &str, status: u16) -> &'static Meaning {
    let by_code = |code| CODES.iter().find(|row| row.code == code && text.contains(row.phrase));
    let unlisted = if status >= 500 { &FAULT } else { &UNLISTED };
    code.and_then(by_code).unwrap_or(unlisted)
}

/// The reasons that an answer gives, such as `TableWriteKeyRangeThroughputExceeded`.
fn throttling_reasons(error: &(dyn StdError + 'static)) -> Vec<String> {
    let Some(exception) = error.source() else { return Vec::new() };
    let reasons: &[ThrottlingReason] = if let Some(exception) = exception.downcast_ref::<ThrottlingException>() {
        exception.throttling_reasons()
    } else if let Some(exception) = exception.downcast_ref::<ProvisionedThroughputExceededException>() {
        exception.throttling_reasons()
    } else if let Some(exception) = exception.downcast_ref::<RequestLimitExceeded>() {
        exception.throttling_reasons()
    } else {
        &[]
    };
    reasons.iter().filter_map(|reason| reason.reason()).map(cut).collect()
}

fn throttling_advice(reason: &str) -> Option<&'static str> {
    THROTTLING_REASONS.iter().find(|(end, _)| reason.ends_with(end)).map(|(_, advice)| *advice)
}

/// A request that has no answer.
fn from_dispatch(failure: &DispatchFailure, access: Access) -> Error {
    let Some(error) = failure.as_connector_error() else {
        return Error::new(ErrorKind::Internal, "the request could not be sent").with_effect(access.unanswered());
    };
    if let Some(what) = find::<CredentialsError>(error) {
        let message = format!(
            "there are no usable credentials: {}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile that has some, or \
             run with a role",
            innermost(what)
        );
        return Error::new(ErrorKind::Denied, message);
    }
    // Everything until the connection stands: the name, TCP, TLS. Nothing was sent.
    if find::<hyper_util::client::legacy::Error>(error).is_some_and(hyper_util::client::legacy::Error::is_connect) {
        let kind = if failure.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
        return Error::new(kind, format!("the service cannot be reached: {}", innermost(error)));
    }
    if failure.is_timeout() {
        return Error::new(ErrorKind::Timeout, "no answer within attempt_timeout").with_effect(access.unanswered());
    }
    if failure.is_user() {
        return Error::new(ErrorKind::Internal, format!("the request cannot be sent: {}", innermost(error)));
    }
    Error::new(ErrorKind::Unavailable, format!("the connection broke: {}", innermost(error)))
        .with_effect(access.unanswered())
}

/// An error of this type in the chain of causes.
fn find<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// What is at the bottom of it: the layers above only say that something failed.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(|cause| cut(&cause.to_string())).unwrap_or_default()
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// A failure to make a request gives its cause away only as a whole.
fn as_source(
    failure: aws_smithy_runtime_api::client::result::ConstructionFailure,
) -> SdkError<std::convert::Infallible> {
    SdkError::ConstructionFailure(failure)
}

fn cut(text: &str) -> String {
    let mut cut: String = text.chars().take(TEXT_CHARS_MAX).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use acteon_state_core::{Effect, ErrorKind};
    use aws_sdk_dynamodb::error::{ErrorMetadata, SdkError};
    use aws_sdk_dynamodb::operation::put_item::PutItemError;
    use aws_sdk_dynamodb::types::ThrottlingReason;
    use aws_sdk_dynamodb::types::error::ThrottlingException;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_runtime_api::http::{Response, StatusCode};
    use aws_smithy_types::body::SdkBody;

    use super::{Access, CODES, TEXT_CHARS_MAX, THROTTLING_REASONS, classify, meaning};

    fn answer(code: &str, text: &str, status: u16) -> SdkError<PutItemError, Response> {
        let meta = ErrorMetadata::builder().code(code).message(text).build();
        SdkError::service_error(PutItemError::generic(meta), raw(status))
    }

    fn raw(status: u16) -> Response {
        Response::new(StatusCode::try_from(status).unwrap(), SdkBody::from("stored: hunter2"))
    }

    #[test]
    fn every_row_is_reached() {
        for (place, row) in CODES.iter().enumerate() {
            assert!(
                std::ptr::eq(meaning(Some(row.code), row.phrase, 400), row),
                "row {place}: {} {}",
                row.code,
                row.phrase
            );
        }
        assert_eq!(meaning(Some("SomethingNew"), "", 400).kind, ErrorKind::Internal);
    }

    #[test]
    fn an_answer_of_the_400_family_changed_nothing_and_is_cut() {
        let error = classify(answer("AccessDeniedException", &"x".repeat(10_000), 400), Access::Write);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Denied, Effect::NotApplied));
        assert!(error.message().len() < TEXT_CHARS_MAX + 200, "{error}");
    }

    #[test]
    fn an_answer_of_the_500_family_leaves_only_writes_unknown() {
        for (code, status) in [("InternalServerError", 500), ("ServiceUnavailable", 503), ("SomethingNew", 502)] {
            let written = classify(answer(code, "", status), Access::Write);
            assert_eq!((written.kind(), written.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{code}");
            assert_eq!(classify(answer(code, "", status), Access::Read).effect(), Effect::NotApplied, "{code}");
        }
    }

    #[test]
    fn a_refused_request_is_sorted_by_what_it_says() {
        for (text, kind) in [
            ("Item size has exceeded the maximum allowed size", ErrorKind::TooLarge),
            (
                "Number overflow. Attempting to store a number with magnitude larger than supported range",
                ErrorKind::Overflow,
            ),
            ("The provided key element does not match the schema", ErrorKind::Config),
            ("Invalid UpdateExpression: Syntax error", ErrorKind::Internal),
        ] {
            assert_eq!(classify(answer("ValidationException", text, 400), Access::Write).kind(), kind, "{text}");
        }
    }

    #[test]
    fn throttling_says_what_is_throttled() {
        for (end, advice) in THROTTLING_REASONS {
            let reason = ThrottlingReason::builder().reason(format!("TableWrite{end}")).build();
            let exception = ThrottlingException::builder()
                .throttling_reasons(reason)
                .meta(ErrorMetadata::builder().code("ThrottlingException").message("slow down").build())
                .build();
            let refused = SdkError::service_error(PutItemError::ThrottlingException(exception), raw(400));
            let error = classify(refused, Access::Write);
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Throttled, Effect::NotApplied));
            assert!(error.message().contains(advice) && error.message().contains(end), "{error}");
        }
    }

    #[test]
    fn a_lost_answer_leaves_only_writes_unknown() {
        let broken = || SdkError::<PutItemError, _>::dispatch_failure(ConnectorError::io("reset by peer".into()));
        let late = || SdkError::<PutItemError, _>::timeout_error("late");
        let unreadable = || SdkError::<PutItemError, _>::response_error("half an answer", raw(200));
        for (error, kind) in [
            (broken as fn() -> _, ErrorKind::Unavailable),
            (late as fn() -> _, ErrorKind::Timeout),
            (unreadable as fn() -> _, ErrorKind::Unavailable),
        ] {
            let written = classify(error(), Access::Write);
            assert_eq!((written.kind(), written.effect()), (kind, Effect::Unknown));
            assert_eq!(classify(error(), Access::Read).effect(), Effect::NotApplied);
        }
    }

    #[test]
    fn what_was_stored_never_shows() {
        for error in [
            classify(answer("InternalServerError", "oops", 500), Access::Write),
            classify(SdkError::<PutItemError, _>::response_error("half", raw(200)), Access::Write),
        ] {
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }
}
