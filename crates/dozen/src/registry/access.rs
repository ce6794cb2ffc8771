//! Files that say who is let in to a registry, and what he may do: read at the start, and again when that is wanted.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use dozen_distribution::{Access, Authorizer, Passwords, Rights, TokenKey, TokenService};
use dozen_model::error_chain;

use super::arguments::Serve;

/// See the module.
pub(super) struct Guard {
    passwords: Option<(PathBuf, Arc<Passwords>)>,
    rights: Option<Rights>,
    tokens: Option<Arc<TokenService>>,
}

impl Guard {
    /// What the flags name.
    pub(super) fn read(serve: &Serve) -> Result<Self, Box<dyn Error>> {
        let passwords = match &serve.htpasswd {
            Some(path) => Some((path.clone(), Arc::new(Passwords::read(path)?))),
            None => None,
        };
        let rights = serve.rights.as_deref().map(Rights::read).transpose()?;
        let tokens = match (&serve.token_key, &serve.token_realm, &serve.token_issuer) {
            (Some(path), Some(realm), Some(issuer)) => {
                Some(Arc::new(TokenService::new(realm, &serve.token_service, issuer, path)?))
            }
            _ => None,
        };
        let guard = Self { passwords, rights, tokens };
        guard.warn();
        Ok(guard)
    }

    /// Who is let in. The registry's directory belongs to us by now: the key of its tokens is kept there.
    pub(super) fn access(&self, serve: &Serve) -> Result<Access, Box<dyn Error>> {
        Ok(match (&self.tokens, &self.passwords, &self.rights) {
            (Some(tokens), _, _) => Access::Tokens(tokens.clone()),
            (None, Some((_, passwords)), Some(rights)) => {
                let key = TokenKey::open(&serve.root)?;
                let (realm, service) = (serve.token_realm.clone(), &serve.token_service);
                Access::Rights(Arc::new(Authorizer::new(passwords.clone(), rights.clone(), key, realm, service)))
            }
            (None, Some((_, passwords)), None) => Access::Passwords(passwords.clone()),
            (None, None, _) => Access::Open,
        })
    }

    /// Reads all of them again: what is wrong. What that is about stays as it was.
    pub(super) fn reload(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some((path, passwords)) = &self.passwords
            && let Err(error) = passwords.reload(path)
        {
            problems.push(error_chain(&error));
        }
        if let Some(Err(error)) = self.rights.as_ref().map(Rights::reload) {
            problems.push(error_chain(&error));
        }
        if let Some(Err(error)) = self.tokens.as_ref().map(|tokens| tokens.reload()) {
            problems.push(error_chain(&error));
        }
        self.warn();
        problems
    }

    /// A name that is mistyped opens nothing, and nobody would notice.
    fn warn(&self) {
        if let (Some(rights), Some((path, passwords))) = (&self.rights, &self.passwords) {
            for name in rights.strangers(passwords) {
                tracing::warn!("the rights name {name:?}, whom {} does not know", path.display());
            }
        }
    }
}
