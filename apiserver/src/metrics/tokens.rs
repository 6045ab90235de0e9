//! Tokens of ServiceAccounts that were used.

use prometheus::IntCounter;

use super::Make;
use crate::authn::service_account::{Origin, Use};

/// How many tokens were used, by what they are.
pub struct Tokens {
    fresh: IntCounter,
    stale: IntCounter,
    legacy: IntCounter,
    manual: IntCounter,
    generated: IntCounter,
    invalid: IntCounter,
}

impl Tokens {
    pub(super) fn new(make: &Make<'_>) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            make.counter(&format!("serviceaccount_{name}_total"), &format!("[ALPHA] Cumulative {help} used"))
        };
        Ok(Self {
            fresh: counter("valid_tokens", "valid projected service account tokens")?,
            stale: counter("stale_tokens", "stale projected service account tokens")?,
            legacy: counter("legacy_tokens", "legacy service account tokens")?,
            manual: counter("legacy_manual_token_uses", "manually created legacy tokens")?,
            generated: counter("legacy_auto_token_uses", "auto-generated legacy tokens")?,
            invalid: counter("invalid_legacy_auto_token_uses", "invalid auto-generated legacy tokens")?,
        })
    }

    /// Notes the use of one.
    pub fn used(&self, used: &Use) {
        match used {
            Use::Fresh => self.fresh.inc(),
            Use::Stale { .. } => self.stale.inc(),
            Use::Legacy { holder, .. } => {
                self.legacy.inc();
                match holder.as_ref().map(|holder| holder.origin) {
                    Some(Origin::Manual) => self.manual.inc(),
                    Some(Origin::Generated) => self.generated.inc(),
                    Some(Origin::Invalid) => self.invalid.inc(),
                    None => {}
                }
            }
        }
    }
}
