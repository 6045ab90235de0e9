//! How objects of a custom resource come from one version to another.

use api::Value;
use api::error::Result;
use schema::decode::Mode;

use super::{CustomKind, Version};

/// The strategy of a conversion.
pub enum Conversion {
    /// Versions differ in nothing but their names.
    None,
}

impl Conversion {
    /// Reads `spec.conversion` of a definition.
    pub fn new(_spec: &Value) -> Self {
        Self::None
    }
}

impl CustomKind {
    /// Objects of this kind, of any version, in the version `to`.
    pub async fn convert(&self, objects: Vec<Value>, to: &Version) -> Result<Vec<Value>> {
        match &self.conversion {
            Conversion::None => Ok(objects.into_iter().map(|o| self.rename(o, to)).collect()),
        }
    }

    /// The object in another version that differs in nothing but its name.
    pub fn rename(&self, mut object: Value, to: &Version) -> Value {
        if object.api_version() == to.api_version {
            return object;
        }
        object.set(&["apiVersion"], to.api_version.as_str());
        schema::decode::normalize(object.clone(), to.ty.ty(), Mode::Ignore).map_or(object, |(o, _)| o)
    }
}

/// True for PEM of at least one certificate, as `caBundle` has it: in base64.
pub(super) fn is_bundle(bundle: &Value) -> bool {
    use base64::Engine;
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    let text = bundle.as_str().unwrap_or_default();
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(text) else { return false };
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect();
    !certificates.is_empty()
        && certificates
            .iter()
            .all(|c| c.as_ref().is_ok_and(|c| x509_parser::parse_x509_certificate(c.as_ref()).is_ok()))
}
