//! Small kinds: leases, priorities, runtime classes, flow control, devices.

use api::field::{FieldError, Path};
use api::{Value, names};

use super::{Entry, Errors, Field, Strategy, default_to, immutable};

pub(super) const STRATEGIES: &[Entry] = &[
    ("coordination.k8s.io", "leases", &LEASE),
    ("scheduling.k8s.io", "priorityclasses", &PRIORITY),
    ("node.k8s.io", "runtimeclasses", &RUNTIME),
    ("flowcontrol.apiserver.k8s.io", "flowschemas", &FLOW),
    ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations", &LEVEL),
    ("resource.k8s.io", "resourceslices", &RESOURCE_SLICE),
    ("resource.k8s.io", "deviceclasses", &DEVICE_CLASS),
    ("apiregistration.k8s.io", "apiservices", &API_SERVICE),
];

static LEASE: Strategy =
    Strategy { create_on_update: true, unconditional_update: false, ..Strategy::NEUTRAL };

const HIGHEST_USER_PRIORITY: i64 = 1_000_000_000;

static PRIORITY: Strategy = Strategy {
    default: |p| default_to(p, "preemptionPolicy", "PreemptLowerPriority"),
    validate: |p, errors| {
        let value = p.get("value").as_i64().unwrap_or(0);
        let system = matches!(p.name(), "system-cluster-critical" | "system-node-critical");
        if p.name().starts_with("system-") && !system {
            let why = "priority class names with 'system-' prefix are reserved for system use only. error: system- is not a known name";
            errors.push(FieldError::forbidden(&Path::new("metadata").child("name"), why));
        } else if value > HIGHEST_USER_PRIORITY && !system {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}");
            errors.push(FieldError::forbidden(&Path::new("value"), why));
        }
    },
    validate_update: |new, old, errors| {
        immutable(&Path::new("value"), new.get("value"), old.get("value"), errors);
        immutable(
            &Path::new("preemptionPolicy"),
            new.get("preemptionPolicy"),
            old.get("preemptionPolicy"),
            errors,
        );
    },
    generation: true,
    ..Strategy::NEUTRAL
};

static RUNTIME: Strategy = Strategy {
    validate: |r, errors| {
        let handler = r.str_at(&["handler"]);
        super::check_name(&Path::new("handler"), handler, names::dns_label, errors);
    },
    validate_update: |new, old, errors| {
        immutable(&Path::new("handler"), new.get("handler"), old.get("handler"), errors)
    },
    ..Strategy::NEUTRAL
};

static FLOW: Strategy = Strategy {
    default: |f| super::default_if_empty(f.make_object().entry("spec"), "matchingPrecedence", 1000),
    generation: true,
    ..Strategy::NEUTRAL
};

static LEVEL: Strategy = Strategy {
    default: |l| {
        let spec = l.make_object().entry("spec");
        if let Some(limited) = spec.make_object().get_mut("limited").filter(|l| !l.is_null()) {
            default_to(limited, "nominalConcurrencyShares", 30);
            default_to(limited, "lendablePercent", 0);
            if let Some(queuing) = limited.at_mut(&["limitResponse", "queuing"]).filter(|q| !q.is_null()) {
                default_to(queuing, "queues", 64);
                default_to(queuing, "handSize", 8);
                default_to(queuing, "queueLengthLimit", 50);
            }
        }
        if let Some(exempt) = spec.make_object().get_mut("exempt").filter(|e| !e.is_null()) {
            default_to(exempt, "nominalConcurrencyShares", 0);
            default_to(exempt, "lendablePercent", 0);
        }
    },
    validate: validate_level,
    generation: true,
    ..Strategy::NEUTRAL
};

fn validate_level(level: &Value, errors: &mut Errors) {
    let kind = level.str_at(&["spec", "type"]);
    let path = Path::new("spec");
    if !matches!(kind, "Exempt" | "Limited") {
        errors.push(FieldError::not_supported(&path.child("type"), kind, &["Exempt", "Limited"]));
    }
}

static RESOURCE_SLICE: Strategy = Strategy {
    fields: &[
        Field::text("spec.nodeName", &["spec", "nodeName"]),
        Field::text("spec.driver", &["spec", "driver"]),
    ],
    generation: true,
    ..Strategy::NEUTRAL
};

static API_SERVICE: Strategy = Strategy {
    name: names::path_segment,
    default: |a| {
        if let Some(service) = a.at_mut(&["spec", "service"]).filter(|s| !s.is_null()) {
            default_to(service, "port", 443);
        }
    },
    validate: |a, errors| {
        let path = Path::new("spec");
        let (group, version) = (a.str_at(&["spec", "group"]), a.str_at(&["spec", "version"]));
        let want = format!("{version}.{group}");
        if a.name() != want {
            let why = format!("must be `spec.version+\".\"+spec.group`: {:?}", want);
            errors.push(FieldError::invalid(&Path::new("metadata").child("name"), a.name(), why));
        }
        for field in ["groupPriorityMinimum", "versionPriority"] {
            let n = a.at(&["spec", field]).as_i64().unwrap_or(0);
            if n <= 0 {
                errors.push(FieldError::invalid(
                    &path.child(field),
                    n,
                    "must be positive and less than 20000",
                ));
            }
        }
    },
    ..Strategy::NEUTRAL
};

static DEVICE_CLASS: Strategy = Strategy { generation: true, ..Strategy::NEUTRAL };
