//! The scale subresource of a custom resource: where replicas and selector stand in its objects.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value, object};

/// The paths of a scale subresource.
pub struct Scale {
    spec: Vec<String>,
    spec_path: String,
    status: Vec<String>,
    selector: Vec<String>,
}

fn split(path: &str) -> Vec<String> {
    path.strip_prefix('.').unwrap_or(path).split('.').map(str::to_owned).collect()
}

fn at<'v>(object: &'v Value, path: &[String]) -> &'v Value {
    path.iter().fold(object, |v, key| v.get(key))
}

impl Scale {
    /// Reads `subresources.scale` of a version.
    pub fn new(spec: &Value) -> Option<Self> {
        let path = |key: &str| spec.str_at(&[key]);
        (!spec.is_null()).then(|| Self {
            spec: split(path("specReplicasPath")),
            spec_path: path("specReplicasPath").to_owned(),
            status: split(path("statusReplicasPath")),
            selector: Some(path("labelSelectorPath"))
                .filter(|p| !p.is_empty())
                .map(split)
                .unwrap_or_default(),
        })
    }

    /// The replicas that an object asks for.
    pub fn replicas(&self, object: &Value) -> Option<i64> {
        at(object, &self.spec).as_i64()
    }

    /// The scale of an object.
    pub fn of(&self, object: &Value) -> Value {
        let metadata = object.get("metadata");
        let mut own = Value::object();
        for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
            if !metadata.get(field).is_null() {
                own.set(&[field], metadata.get(field));
            }
        }
        let mut spec = Value::object();
        if let Some(n) = self.replicas(object).filter(|n| *n != 0) {
            spec.set(&["replicas"], n);
        }
        let mut status = object!({"replicas": (at(object, &self.status).as_i64().unwrap_or(0))});
        let selector =
            if self.selector.is_empty() { "" } else { at(object, &self.selector).as_str().unwrap_or("") };
        if !selector.is_empty() {
            status.set(&["selector"], selector);
        }
        object!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": own, "spec": spec, "status": status})
    }

    /// The scale of an object, which must say how many replicas it wants.
    pub fn get(&self, object: &Value) -> Result<Value> {
        match self.replicas(object) {
            Some(_) => Ok(self.of(object)),
            None => Err(ApiError::internal(format!(
                "the spec replicas field {} does not exist",
                api::field::go_quote(&self.spec_path)
            ))),
        }
    }

    /// Sets the replicas that an object asks for.
    pub fn set(&self, object: &mut Value, replicas: i64) {
        let path: Vec<&str> = self.spec.iter().map(String::as_str).collect();
        object.set(&path, replicas);
    }

    /// Replicas are numbers that a scale can show.
    pub fn validate(&self, object: &Value, errors: &mut Vec<FieldError>) {
        let places = [(&self.spec, self.spec_path.as_str()), (&self.status, "")];
        for (path, _) in places {
            let field = path.join(".");
            let Some(n) = at(object, path).as_i64() else { continue };
            let path = Path::new(&field);
            if n < 0 {
                errors.push(FieldError::invalid(&path, n, "should be a non-negative integer"));
            } else if n > i64::from(i32::MAX) {
                let why = format!("should be less than or equal to {}", i32::MAX);
                errors.push(FieldError::invalid(&path, n, why));
            }
        }
    }
}
