//! The kinds that the simulated API server stores, behind one enum.

use std::fmt;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use searchcell_core::names::{FIELD_MANAGER, LABEL_MANAGED_BY};
use searchcell_core::snapshot::label;
use searchcell_core::step::{Kind, Object};
use searchcell_crds::{IndexPlacement, SearchCell};
use searchcell_operator::kube_io::trim::Trim;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A type that the store holds.
pub trait Stored: Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync + 'static {
    const KIND: K;
    fn of(object: &Obj) -> Option<&Self>;
    fn wrap(self) -> Obj;
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// True when the desired state of two revisions differs: what raises `metadata.generation`.
    fn spec_differs(&self, other: &Self) -> bool;
}

macro_rules! kinds {
    ($($name:ident($type:ty), $spec:expr;)+) => {
        /// Kinds of stored objects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum K { $($name),+ }

        impl K {
            pub const ALL: &[K] = &[$(K::$name),+];
        }

        /// One stored object.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Obj { $($name($type)),+ }

        impl Obj {
            pub fn kind(&self) -> K {
                match self { $(Obj::$name(_) => K::$name),+ }
            }
            pub fn meta(&self) -> &ObjectMeta {
                match self { $(Obj::$name(o) => &o.metadata),+ }
            }
            pub fn meta_mut(&mut self) -> &mut ObjectMeta {
                match self { $(Obj::$name(o) => &mut o.metadata),+ }
            }
            pub fn to_value(&self) -> Value {
                match self { $(Obj::$name(o) => serde_json::to_value(o).unwrap()),+ }
            }
            pub fn from_value(kind: K, value: Value) -> Obj {
                match kind { $(K::$name => Obj::$name(serde_json::from_value(value).unwrap())),+ }
            }
            /// What the operator's watch keeps of it, if it selects it at all.
            pub fn watched(&self) -> Option<Obj> {
                let managed = label(self.meta(), LABEL_MANAGED_BY) == Some(FIELD_MANAGER);
                if !managed && !matches!(self.kind(), K::Cell | K::Placement) {
                    return None;
                }
                let mut kept = self.clone();
                match &mut kept { $(Obj::$name(o) => o.trim()),+ }
                Some(kept)
            }
            /// True when nothing that wakes the operator differs.
            pub fn same(&self, other: &Obj) -> bool {
                match (self, other) {
                    $((Obj::$name(a), Obj::$name(b)) => Trim::same(a, b),)+
                    _ => false,
                }
            }
            /// True when the desired state differs.
            pub fn spec_differs(&self, other: &Obj) -> bool {
                match (self, other) {
                    $((Obj::$name(a), Obj::$name(b)) => a.spec_differs(b),)+
                    _ => true,
                }
            }
        }

        $(impl Stored for $type {
            const KIND: K = K::$name;
            fn of(object: &Obj) -> Option<&Self> {
                match object { Obj::$name(o) => Some(o), _ => None }
            }
            fn wrap(self) -> Obj { Obj::$name(self) }
            fn meta(&self) -> &ObjectMeta { &self.metadata }
            fn meta_mut(&mut self) -> &mut ObjectMeta { &mut self.metadata }
            fn spec_differs(&self, other: &Self) -> bool {
                let differs: fn(&$type, &$type) -> bool = $spec;
                differs(self, other)
            }
        })+
    };
}

kinds! {
    Cell(SearchCell), |a, b| a.spec != b.spec;
    Placement(IndexPlacement), |a, b| a.spec != b.spec;
    Service(Service), |_, _| false;
    ConfigMap(ConfigMap), |_, _| false;
    Budget(PodDisruptionBudget), |a, b| a.spec != b.spec;
    Policy(NetworkPolicy), |a, b| a.spec != b.spec;
    StatefulSet(StatefulSet), |a, b| a.spec != b.spec;
    Deployment(Deployment), |a, b| a.spec != b.spec;
    Autoscaler(HorizontalPodAutoscaler), |a, b| a.spec != b.spec;
    Claim(PersistentVolumeClaim), |_, _| false;
    Pod(Pod), |_, _| false;
    Secret(Secret), |_, _| false;
}

impl fmt::Display for K {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl From<Kind> for K {
    fn from(kind: Kind) -> K {
        match kind {
            Kind::Service => K::Service,
            Kind::ConfigMap => K::ConfigMap,
            Kind::PodDisruptionBudget => K::Budget,
            Kind::NetworkPolicy => K::Policy,
            Kind::StatefulSet => K::StatefulSet,
            Kind::Deployment => K::Deployment,
            Kind::HorizontalPodAutoscaler => K::Autoscaler,
            Kind::PersistentVolumeClaim => K::Claim,
            Kind::Pod => K::Pod,
            Kind::Secret => K::Secret,
        }
    }
}

impl From<&Object> for Obj {
    fn from(object: &Object) -> Obj {
        match object {
            Object::Service(o) => Obj::Service((**o).clone()),
            Object::ConfigMap(o) => Obj::ConfigMap((**o).clone()),
            Object::PodDisruptionBudget(o) => Obj::Budget((**o).clone()),
            Object::NetworkPolicy(o) => Obj::Policy((**o).clone()),
            Object::StatefulSet(o) => Obj::StatefulSet((**o).clone()),
            Object::Deployment(o) => Obj::Deployment((**o).clone()),
            Object::HorizontalPodAutoscaler(o) => Obj::Autoscaler((**o).clone()),
        }
    }
}
