//! The nouns that every other crate speaks: ids, digests, image references, names, signals, ports,
//! what a container is asked to be, and the kinds of error.
//!
//! Values are parsed once, at the door, and are valid ever after: a [`ContainerName`] in hand needs no
//! second look. Nothing here touches the system.

pub mod agent;
mod artifact_mount;
pub mod base64;
mod cgroup_parent;
mod container;
mod credentials;
pub mod der;
mod digest;
mod dns;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod health;
mod hex;
mod id;
mod interface_sysctl;
pub mod json;
mod log;
pub mod moment;
mod mount;
mod name;
mod network;
mod network_spec;
mod reference;
mod resources;
mod restart;
pub mod run_root;
mod sharing;
mod signal;
pub mod spelling;
mod subject_public_key;
mod user;
mod user_namespace;

pub use artifact_mount::{ArtifactMount, MountedFile, MountedFiles, WantedFiles, WhichFiles};
pub use cgroup_parent::{CgroupParent, CgroupParentError};
pub use container::{
    BuildStep, Capabilities, CapabilityChange, ContainerSpec, HostEntry, Isolation, ProcessSpec, SeccompChoice,
    StdinMode, StopSpec,
};
pub use credentials::{line_without_credentials, without_credentials};
pub use digest::{Digest, DigestError};
pub use dns::DnsSpec;
pub use error::{Classified, ErrorKind, error_chain};
pub use health::{HealthCheck, HealthTest, OnUnhealthy};
pub use id::{ContainerId, ExecId, IdError, ImageId, NetworkId};
pub use interface_sysctl::{InterfaceSysctl, InterfaceSysctlError};
pub use log::{
    FluentdOptions, GelfCompression, GelfOptions, LogAddress, LogAttributes, LogDelivery, LogDriver, LogFiles, LogSpec,
    LogSpecError, SyslogFormat, SyslogOptions,
};
pub use mount::{BindPropagation, BindRecursion, Mount, MountOwner, MountSource, NewVolume, TmpfsOptions};
pub use name::{ContainerName, NameError, NetworkName, VolumeName};
pub use network::{NetworkMode, PortBinding, PortError, PortRange, Protocol};
pub use network_spec::{
    BridgeOptions, DEFAULT_NETWORK, EndpointSpec, GatewayMode, IpvlanFlag, IpvlanMode, MacvlanMode, NetworkDriver,
    NetworkSpec, Parent, SubnetSpec,
};
pub use reference::{Reference, ReferenceError, is_path_component, is_tag};
pub use resources::{
    BlockDeviceRate, BlockIoSpec, CpuSpec, DeviceMapping, DeviceRequest, DeviceRule, DeviceSpec, MemorySpec,
    ResourceSpec, Ulimit,
};
pub use restart::RestartPolicy;
pub use sharing::{FurtherGroup, IpcMode, PidMode, SharingSpec};
pub use signal::{Signal, SignalError};
pub use subject_public_key::{KeyKind, SubjectPublicKey, SubjectPublicKeyError};
pub use user::{UserSpec, UserSpecError};
pub use user_namespace::{IdRange, IdRangeError, UserNamespace};
