//! What a server answers.

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Nil,
    Int(i64),
    BulkString(Vec<u8>),
    /// A status, such as `OK`.
    SimpleString(String),
    VerbatimString(String),
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    ServerError(ServerError),
    /// A type that no command of ours is answered with.
    Other,
}

/// An error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerError {
    text: Box<str>,
}

impl ServerError {
    pub(crate) fn new(text: impl Into<Box<str>>) -> Self {
        Self { text: text.into() }
    }

    /// The first word.
    pub(crate) fn code(&self) -> &str {
        self.text.split_once(' ').map_or(&self.text, |(code, _)| code)
    }

    /// What comes behind it; empty when that is all.
    pub(crate) fn details(&self) -> &str {
        self.text.split_once(' ').map_or("", |(_, details)| details)
    }
}

#[cfg(test)]
mod tests {
    use super::ServerError;

    #[test]
    fn an_error_is_a_code_and_details() {
        let error = ServerError::new("MOVED 3999 127.0.0.1:6381");
        assert_eq!((error.code(), error.details()), ("MOVED", "3999 127.0.0.1:6381"));
        assert_eq!((ServerError::new("OOM").code(), ServerError::new("OOM").details()), ("OOM", ""));
    }
}
