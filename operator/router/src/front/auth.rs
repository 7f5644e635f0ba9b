//! Who asks, and what they may do. Effects: reads mounted files, again when they change.

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, StatusCode, header};
use tokio::time::Instant;

use super::error::Failure;
use crate::sealed::Hidden;
use crate::settings::{Permission, User};

/// How old what is known of files may be.
const FRESH_FOR: Duration = Duration::from_secs(5);

/// All users of the front.
pub struct Users {
    users: Vec<User>,
    secrets: Mutex<Option<(Instant, Vec<Secrets>)>>,
}

#[derive(Clone, Default)]
struct Secrets {
    password: Option<Hidden>,
    token: Option<Hidden>,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// There are no users: everybody may do everything.
    Anybody,
    /// One of them.
    User(&'a User),
}

impl Caller<'_> {
    /// Whether the caller may read a collection.
    pub fn may_read(&self, collection: &str) -> bool {
        self.may(collection, Permission::Read)
    }

    /// Whether the caller may write to a collection.
    pub fn may_write(&self, collection: &str) -> bool {
        self.may(collection, Permission::Write)
    }

    fn may(&self, collection: &str, what: Permission) -> bool {
        match self {
            Caller::Anybody => true,
            Caller::User(user) => (user.collections.get(collection))
                .is_some_and(|permission| *permission == what || *permission == Permission::ReadWrite),
        }
    }
}

impl Users {
    /// As the configuration has them.
    pub fn new(users: Vec<User>) -> Self {
        Self { users, secrets: Mutex::new(None) }
    }

    /// Who asks, from the header `Authorization`.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller<'_>, Failure> {
        if self.users.is_empty() {
            return Ok(Caller::Anybody);
        }
        let refused = || {
            let reason = "missing or wrong credentials for REST request";
            Failure::new(StatusCode::UNAUTHORIZED, "security_exception", reason)
        };
        let header = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, value) = header.and_then(|header| header.split_once(' ')).ok_or_else(refused)?;
        let secrets = self.secrets();
        let known = self.users.iter().zip(&secrets);
        let found = if scheme.eq_ignore_ascii_case("basic") {
            let pair = STANDARD.decode(value.trim()).map_err(|_| refused())?;
            let colon = pair.iter().position(|byte| *byte == b':').ok_or_else(refused)?;
            let (name, password) = pair.split_at_checked(colon).ok_or_else(refused)?;
            let password = password.get(1..).unwrap_or_default();
            let is = |(user, secrets): &(&User, &Secrets)| {
                user.name.as_bytes() == name
                    && secrets.password.as_ref().is_some_and(|known| known.is(password))
            };
            known.clone().find(is)
        } else if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("apikey") {
            let token = value.trim().as_bytes();
            let is = |(_, secrets): &(&User, &Secrets)| {
                secrets.token.as_ref().is_some_and(|known| known.is(token))
            };
            known.clone().find(is)
        } else {
            None
        };
        found.map(|(user, _)| Caller::User(user)).ok_or_else(refused)
    }

    fn secrets(&self) -> Vec<Secrets> {
        let Ok(mut kept) = self.secrets.lock() else { return Vec::new() };
        if let Some((read, secrets)) = &*kept
            && read.elapsed() < FRESH_FOR
        {
            return secrets.clone();
        }
        let before = kept.take().map(|(_, secrets)| secrets).unwrap_or_default();
        let secrets: Vec<Secrets> = (self.users.iter().enumerate())
            .map(|(position, user)| {
                let before = before.get(position).cloned().unwrap_or_default();
                Secrets {
                    password: user.password_file.as_deref().and_then(|path| secret(path, before.password)),
                    token: user.token_file.as_deref().and_then(|path| secret(path, before.token)),
                }
            })
            .collect();
        *kept = Some((Instant::now(), secrets.clone()));
        secrets
    }
}

/// A file's text; while it is replaced it may be missing, and stays as it was. An empty one lets nobody in.
fn secret(path: &Path, before: Option<Hidden>) -> Option<Hidden> {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let text = Hidden::new(text.trim_end_matches(['\r', '\n']).to_owned());
            Some(text).filter(|text| !text.reveal().is_empty())
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), error = %error.kind(), "a secret stays as it is");
            before
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_with_the_right_secret_and_only_what_is_allowed() {
        let root = std::env::temp_dir().join(format!("searchcell-router-auth-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        for (name, text) in [("password", "hunter2\n"), ("token", "abc"), ("empty", "\n")] {
            std::fs::write(root.join(name), text).unwrap();
        }
        let user = |name: &str, password: Option<&str>, token: Option<&str>, permission| User {
            name: name.to_owned(),
            password_file: password.map(|file| root.join(file)),
            token_file: token.map(|file| root.join(file)),
            collections: [("messages".to_owned(), permission)].into(),
        };
        let users = Users::new(vec![
            user("app", Some("password"), None, Permission::Write),
            user("reader", None, Some("token"), Permission::Read),
            user("nobody", Some("empty"), Some("missing"), Permission::ReadWrite),
        ]);
        let caller = |value: String| {
            let headers = [(header::AUTHORIZATION, value.parse().unwrap())].into_iter().collect();
            users.caller(&headers).map(|caller| {
                (caller.may_read("messages"), caller.may_write("messages"), caller.may_write("x"))
            })
        };
        let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
        assert_eq!(caller(basic("app:hunter2")), Ok((false, true, false)));
        assert_eq!(caller("Bearer abc".into()), Ok((true, false, false)));
        assert_eq!(caller("ApiKey abc".into()), Ok((true, false, false)));
        for wrong in [
            basic("app:hunter"),
            basic("app"),
            basic("nobody:"),
            basic("reader:abc"),
            "Bearer ".into(),
            "Bearer x".into(),
            "x".into(),
        ] {
            assert_eq!(caller(wrong.clone()).unwrap_err().status, 401, "{wrong}");
        }
        assert!(users.caller(&HeaderMap::new()).is_err());
        assert!(Users::new(Vec::new()).caller(&HeaderMap::new()).unwrap().may_write("messages"));
        std::fs::remove_dir_all(root).unwrap();
    }
}
