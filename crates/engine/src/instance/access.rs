//! Who may come in: the password of the default user, and users with their own.
//!
//! # Guarantees
//! How long comparing a password takes tells whether an attempt is as long as it, and nothing else. It never shows in debug output.
//!
//! # Failure
//! A wrong password and an unknown user are the same to who tries them.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use parking_lot::RwLock;
use subtle::ConstantTimeEq as _;

/// Who a connection is until it says otherwise.
pub(crate) const DEFAULT_USER: &str = "default";

/// A password. Its debug output is `***`.
#[derive(Clone, Default)]
pub struct Secret(Vec<u8>);

/// A name and a password to come in with. A user may do everything.
#[derive(Clone, Debug)]
pub struct User {
    /// What `AUTH` is called with; a user named `default` sets the password of those who give no name.
    pub name: String,
    /// The password.
    pub password: Secret,
}

/// The users of an instance.
pub(crate) struct Access {
    users: RwLock<Users>,
}

struct Users {
    /// `None`: the default user needs no password.
    default_password: Option<Secret>,
    /// All others.
    named: Vec<(Arc<str>, Secret)>,
}

impl Secret {
    /// Whether `attempt` is the password.
    pub(crate) fn is(&self, attempt: &[u8]) -> bool {
        self.0.ct_eq(attempt).into()
    }

    /// The password itself, for `CONFIG GET requirepass`.
    pub(crate) fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Secret {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Access {
    pub(crate) fn new(password: Option<Secret>, users: Vec<User>) -> Self {
        let mut default_password = password;
        let mut named = Vec::new();
        for user in users {
            if user.name == DEFAULT_USER {
                default_password = Some(user.password);
            } else {
                named.push((Arc::from(user.name), user.password));
            }
        }
        Self { users: RwLock::new(Users { default_password, named }) }
    }

    /// Whether connections may do everything without `AUTH`.
    pub(crate) fn is_open(&self) -> bool {
        self.users.read().default_password.is_none()
    }

    /// The user's name, if the password is right. The default user without a password is content with any.
    pub(crate) fn authenticate(&self, user: &[u8], password: &[u8]) -> Option<Arc<str>> {
        let users = self.users.read();
        if user == DEFAULT_USER.as_bytes() {
            let is_right = users.default_password.as_ref().is_none_or(|expected| expected.is(password));
            return is_right.then(|| Arc::from(DEFAULT_USER));
        }
        let Some((name, expected)) = users.named.iter().find(|(name, _)| name.as_bytes() == user) else {
            // Takes as long as a wrong password for a user that exists.
            black_box(password.ct_eq(password));
            return None;
        };
        expected.is(password).then(|| name.clone())
    }

    pub(crate) fn has_user(&self, name: &[u8]) -> bool {
        name == DEFAULT_USER.as_bytes() || self.users.read().named.iter().any(|(known, _)| known.as_bytes() == name)
    }

    /// Changes the password of the default user; `None`: needs none. Who is in stays in.
    pub(crate) fn set_password(&self, password: Option<Secret>) {
        self.users.write().default_password = password;
    }

    /// The password of the default user.
    pub(crate) fn password(&self) -> Option<Secret> {
        self.users.read().default_password.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Secret, User};

    #[test]
    fn password_is_right_only_as_a_whole() {
        let secret = Secret::from("secret");
        assert!(secret.is(b"secret"));
        for attempt in ["", "s", "secre", "secret!", "secretsecret", "Secret", "secreT"] {
            assert!(!secret.is(attempt.as_bytes()), "{attempt}");
        }
        assert!(Secret::default().is(b""));
        assert!(!Secret::default().is(b"\0"));
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn users_come_in_with_their_own_password() {
        let user = |name: &str, password: &str| User { name: name.to_owned(), password: password.into() };
        let access = Access::new(None, vec![user("ann", "a"), user("default", "d")]);
        assert!(!access.is_open());
        assert_eq!(access.authenticate(b"ann", b"a").as_deref(), Some("ann"));
        assert_eq!(access.authenticate(b"default", b"d").as_deref(), Some("default"));
        for (name, password) in [("ann", "d"), ("default", "a"), ("bob", "a"), ("bob", "")] {
            assert_eq!(access.authenticate(name.as_bytes(), password.as_bytes()), None, "{name}");
        }
        access.set_password(None);
        assert!(access.is_open());
        assert_eq!(access.authenticate(b"default", b"anything").as_deref(), Some("default"));
    }
}
