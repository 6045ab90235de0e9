//! The scale subresource of a custom resource: where replicas and selector stand in its objects.

use api::error::Result;
use api::field::{FieldError, Path};
use api::{ApiError, Value, object};
use schema::patch::{go_map, go_type};

/// The paths of a scale subresource.
pub struct Scale {
    spec: Place,
    status: Place,
    selector: Option<Place>,
}

/// Where something stands in an object.
struct Place {
    /// As the definition says it.
    path: String,
    steps: Vec<String>,
}

impl Place {
    fn new(path: &str) -> Self {
        let steps = path.strip_prefix('.').unwrap_or(path).split('.').map(str::to_owned).collect();
        Self { path: path.to_owned(), steps }
    }

    /// What is there; nothing when it is not there.
    fn of<'v>(&self, object: &'v Value) -> &'v Value {
        self.steps.iter().fold(object, |v, step| v.get(step))
    }

    /// What is there, if it is of the type that Go calls `wanted`; or why it cannot be had.
    fn of_type<'v>(&self, object: &'v Value, wanted: &str) -> std::result::Result<Option<&'v Value>, String> {
        let wrong = |steps: usize, value: &Value, wanted: &str| {
            let is = if value.is_null() { "<nil>" } else { go_type(value) };
            let (path, shown) = (self.steps[..steps].join("."), go_map(value));
            Err(format!(".{path} accessor error: {shown} is of the type {is}, expected {wanted}"))
        };
        let mut at = object;
        for (i, step) in self.steps.iter().enumerate() {
            let Some(members) = at.as_object() else { return wrong(i, at, "map[string]interface{}") };
            match members.get(step) {
                Some(value) => at = value,
                None => return Ok(None),
            }
        }
        if go_type(at) == wanted { Ok(Some(at)) } else { wrong(self.steps.len(), at, wanted) }
    }
}

impl Scale {
    /// Reads `subresources.scale` of a version.
    pub fn new(spec: &Value) -> Option<Self> {
        let path = |key: &str| spec.str_at(&[key]);
        (!spec.is_null()).then(|| Self {
            spec: Place::new(path("specReplicasPath")),
            status: Place::new(path("statusReplicasPath")),
            selector: Some(path("labelSelectorPath")).filter(|p| !p.is_empty()).map(Place::new),
        })
    }

    /// The replicas that an object asks for.
    pub fn replicas(&self, object: &Value) -> Option<i64> {
        self.spec.of(object).as_i64()
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
        let mut status = object!({"replicas": (self.status.of(object).as_i64().unwrap_or(0))});
        let selector = self.selector.as_ref().and_then(|s| s.of(object).as_str()).unwrap_or_default();
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
                api::field::go_quote(&self.spec.path)
            ))),
        }
    }

    /// Sets the replicas that an object asks for.
    pub fn set(&self, object: &mut Value, replicas: i64) {
        let path: Vec<&str> = self.spec.steps.iter().map(String::as_str).collect();
        object.set(&path, replicas);
    }

    /// Replicas are numbers that a scale can show, and the selector is text.
    pub fn validate(&self, object: &Value, status_alone: bool, errors: &mut Vec<FieldError>) {
        for place in (!status_alone).then_some(&self.spec).into_iter().chain([&self.status]) {
            let path = Path::new(&place.path);
            match place.of_type(object, "int64").map(|n| n.and_then(Value::as_i64).unwrap_or(0)) {
                Err(why) => errors.push(FieldError::invalid(&path, 0, why)),
                Ok(n @ ..0) => errors.push(FieldError::invalid(&path, n, "should be a non-negative integer")),
                Ok(n) if n > i64::from(i32::MAX) => {
                    let why = format!("should be less than or equal to {}", i32::MAX);
                    errors.push(FieldError::invalid(&path, n, why));
                }
                Ok(_) => {}
            }
        }
        if let Some(place) = &self.selector
            && let Err(why) = place.of_type(object, "string")
        {
            errors.push(FieldError::invalid(&Path::new(&place.path), "", why));
        }
    }
}
