//! Tokens of a file: lines of a token, the name and the UID of its user, and perhaps the user's groups.
//!
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#static-token-file>.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use ring::digest::{SHA256, digest};

use super::UserInfo;

/// Tokens, by their digest: comparing these tells nobody how much of a token is right.
#[derive(Default)]
pub struct StaticTokens(HashMap<Vec<u8>, UserInfo>);

impl StaticTokens {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// It cannot be read, or a line has not enough in it.
    pub fn read(path: &Path) -> Result<Self> {
        let text = crate::config_file::text(path)?;
        Self::parse(&text).with_context(|| format!("in the token file {}", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut tokens = HashMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let cells = cells(line);
            let [token, name, uid, rest @ ..] = cells.as_slice() else {
                bail!(
                    "line {}: token file must have at least 3 columns (token, user name, user uid), found {}",
                    i + 1,
                    cells.len()
                )
            };
            if token.is_empty() {
                tracing::warn!(line = i + 1, "empty token has been found in the token file");
                continue;
            }
            let groups = rest.first().map_or("", String::as_str).split(',').filter(|g| !g.is_empty());
            let user = UserInfo {
                name: name.clone(),
                uid: uid.clone(),
                groups: groups.map(str::to_owned).collect(),
                ..UserInfo::default()
            };
            if tokens.insert(key(token), user).is_some() {
                tracing::warn!(line = i + 1, "duplicate token has been found in the token file");
            }
        }
        Ok(Self(tokens))
    }

    /// The user of a token.
    pub fn user(&self, token: &str) -> Option<UserInfo> {
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&key(token)).cloned()
    }
}

fn key(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

/// The cells of a line, which may be in quotes.
fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(std::mem::take(&mut cell)),
            c => cell.push(c),
        }
    }
    cells.push(cell);
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_users_and_their_groups() {
        let tokens = StaticTokens::parse("t1,ann,1\nt2,bob,2,\"dev,ops\"\n").unwrap();
        assert_eq!(tokens.user("t1").unwrap().name, "ann");
        let bob = tokens.user("t2").unwrap();
        assert_eq!((bob.uid.as_str(), bob.groups), ("2", vec!["dev".to_owned(), "ops".to_owned()]));
        assert!(tokens.user("t3").is_none());
        let short = StaticTokens::parse("t,ann").err().unwrap().to_string();
        assert!(short.contains("at least 3 columns"), "{short}");
    }
}
