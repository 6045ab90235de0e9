//! What expressions ask about access.

use std::borrow::Cow;

use cel::{Attributes, Authorizer, Decision};

use crate::authn::{UserInfo, service_account};
use crate::authz;
use crate::server::Server;

/// Answers for the user of a request.
pub(super) struct Access<'a> {
    pub server: &'a Server,
    pub user: &'a UserInfo,
}

impl Authorizer for Access<'_> {
    fn authorize(&self, asked: &Attributes) -> Decision {
        let account = asked.service_account.as_ref();
        let account =
            account.map(|(namespace, name)| service_account::user_of(namespace, name, "", Vec::new()));
        let what = authz::Attributes {
            verb: &asked.verb,
            group: &asked.group,
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name: &asked.name,
            path: asked.path.as_deref().unwrap_or_default(),
            version: if asked.path.is_some() { "" } else { "*" },
            selectors: Cow::Owned(authz::Selectors::read(&asked.field_selector, &asked.label_selector)),
        };
        let user = account.as_ref().unwrap_or(self.user);
        match self.server.authorizer.authorize_now(&self.server.storage, user, &what) {
            authz::Decision::Allow(reason) => Decision { allowed: true, reason, error: None },
            authz::Decision::Deny(reason) | authz::Decision::NoOpinion(reason) => {
                Decision { allowed: false, reason, error: None }
            }
            authz::Decision::Failed { why, .. } => {
                Decision { allowed: false, reason: String::new(), error: Some(why) }
            }
        }
    }
}
