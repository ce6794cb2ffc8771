//! Accepted means it acts: every field that acts, and the test that shows on a running engine what it does. A field
//! without one, and a test that is no longer there, fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::super::endpoints::{CONNECT, DISCONNECT};
use super::super::network_request::NETWORK;
use super::super::resources::UPDATE;
use super::{COMMIT, CREATE, EXEC, EXEC_START, Field, Fields, VOLUME};

/// The requests, and what their fields' paths begin with.
const REQUESTS: [(&str, Fields); 9] = [
    ("create", CREATE),
    ("exec", EXEC),
    ("exec start", EXEC_START),
    ("volume", VOLUME),
    ("commit", COMMIT),
    ("network", NETWORK),
    ("connect", CONNECT),
    ("disconnect", DISCONNECT),
    ("update", UPDATE),
];

/// A test, and the fields that it shows: a request and a path, or several paths behind one `HostConfig.`.
const SHOWN: &[(&str, &[&str])] = &[
    ("the_process_sees_what_it_was_given", &["create Env", "create Cmd", "create Image"]),
    ("a_container_has_the_names_that_it_was_given", &["create Hostname", "create Domainname"]),
    ("user_directory_and_entrypoint", &["create User", "create WorkingDir", "create Entrypoint"]),
    (
        "attach_keeps_the_streams_apart_and_closes_half",
        &["create AttachStdin", "create AttachStdout", "create AttachStderr", "create OpenStdin", "create StdinOnce"],
    ),
    ("a_terminal", &["create Tty"]),
    ("ranges_and_all", &["create ExposedPorts", "create HostConfig.PublishAllPorts"]),
    ("checks_say_whether_a_container_is_well", &["create Healthcheck.Test", "create Healthcheck.Interval"]),
    (
        "a_check_that_takes_too_long_is_killed_and_has_failed",
        &["create Healthcheck.Timeout", "create Healthcheck.Retries"],
    ),
    ("a_start_period_is_waited_for", &["create Healthcheck.StartPeriod", "create Healthcheck.StartInterval"]),
    ("anonymous_volumes", &["create Volumes"]),
    ("labels_and_a_file_for_the_id", &["create Labels"]),
    ("stop_signal_and_timeout", &["create StopSignal", "create StopTimeout"]),
    ("binds", &["create HostConfig.Binds", "create HostConfig.Mounts.Type", "create HostConfig.Mounts.Source"]),
    ("a_json_log_is_rotated_compressed_and_read_back", &["create HostConfig.LogConfig"]),
    ("kinds_of_networks", &["create HostConfig.NetworkMode"]),
    ("published_ports", &["create HostConfig.PortBindings"]),
    (
        "a_failure_is_retried_as_often_as_was_asked_and_inspect_says_why",
        &["create HostConfig.RestartPolicy.Name", "create HostConfig.RestartPolicy.MaximumRetryCount"],
    ),
    ("what_is_unwell_is_restarted_stopped_or_killed_and_says_why", &["create HostConfig.OnUnhealthy"]),
    ("removal_by_itself", &["create HostConfig.AutoRemove"]),
    ("mounts_are_taken_from_other_containers", &["create HostConfig.VolumesFrom"]),
    (
        "a_console_has_its_size_from_the_beginning",
        &["create HostConfig.ConsoleSize", "exec ConsoleSize", "exec start ConsoleSize", "exec start Tty"],
    ),
    (
        "groups_and_values_of_the_kernel_are_the_containers",
        &["create HostConfig.Annotations", "create HostConfig.GroupAdd", "create HostConfig.Sysctls"],
    ),
    ("capabilities", &["create HostConfig.CapAdd", "create HostConfig.CapDrop"]),
    (
        "namespaces_of_the_host_are_shared_where_it_is_asked",
        &[
            "create HostConfig.CgroupnsMode",
            "create HostConfig.IpcMode",
            "create HostConfig.PidMode",
            "create HostConfig.UTSMode",
        ],
    ),
    ("a_container_has_users_of_its_own_and_the_host_has_none_of_them", &["create HostConfig.UsernsMode"]),
    (
        "what_is_asked_of_dns_stands_in_resolv_conf_and_in_inspect",
        &["create HostConfig.Dns", "create HostConfig.DnsOptions", "create HostConfig.DnsSearch"],
    ),
    ("names", &["create HostConfig.ExtraHosts"]),
    ("privileged", &["create HostConfig.Privileged"]),
    ("what_is_hidden", &["create HostConfig.ReadonlyRootfs"]),
    ("options", &["create HostConfig.SecurityOpt"]),
    ("memory", &["create HostConfig.Tmpfs", "create HostConfig.Mounts.Target", "create HostConfig.Mounts.ReadOnly"]),
    ("a_first_process_that_reaps", &["create HostConfig.Init"]),
    (
        "what_is_masked_and_read_only_is_what_was_asked",
        &["create HostConfig.MaskedPaths", "create HostConfig.ReadonlyPaths"],
    ),
    (
        "memory_that_is_shared_or_on_tmpfs_is_as_asked",
        &[
            "create HostConfig.ShmSize",
            "create HostConfig.Mounts.TmpfsOptions.SizeBytes",
            "create HostConfig.Mounts.TmpfsOptions.Mode",
            "create HostConfig.Mounts.TmpfsOptions.Options",
        ],
    ),
    (
        "what_is_below_a_bind_comes_along_or_not_and_is_read_only_or_not",
        &[
            "create HostConfig.Mounts.BindOptions.Propagation",
            "create HostConfig.Mounts.BindOptions.NonRecursive",
            "create HostConfig.Mounts.BindOptions.ReadOnlyNonRecursive",
            "create HostConfig.Mounts.BindOptions.ReadOnlyForceRecursive",
        ],
    ),
    (
        "a_mount_makes_its_source_and_labels_its_volume",
        &["create HostConfig.Mounts.BindOptions.CreateMountpoint", "create HostConfig.Mounts.VolumeOptions.Labels"],
    ),
    ("volumes_with_copy_up", &["create HostConfig.Mounts.VolumeOptions.NoCopy"]),
    ("a_part_of_a_volume_is_mounted_and_nothing_beside_it", &["create HostConfig.Mounts.VolumeOptions.Subpath"]),
    (
        "files_are_mounted_where_the_image_has_a_directory_a_file_or_nothing",
        &[
            "create HostConfig.Mounts.ArtifactOptions.Digest",
            "create HostConfig.Mounts.ArtifactOptions.Title",
            "create HostConfig.Mounts.ArtifactOptions.Name",
        ],
    ),
    ("the_file_system_of_an_image_is_mounted_and_the_image_kept", &["create HostConfig.Mounts.ImageOptions.Subpath"]),
    (
        "the_container_s_user_owns_what_the_host_s_does",
        &["create HostConfig.Mounts.Owner.UID", "create HostConfig.Mounts.Owner.GID"],
    ),
    (
        "limits_are_in_force_and_shown",
        &[
            "create HostConfig.CpuShares",
            "create HostConfig.Memory",
            "create HostConfig.NanoCpus",
            "create HostConfig.CpusetCpus",
            "create HostConfig.MemoryReservation",
            "create HostConfig.MemorySwap",
            "create HostConfig.PidsLimit",
            "create HostConfig.OomScoreAdj",
            "create HostConfig.Ulimits.Name",
            "create HostConfig.Ulimits.Soft",
            "create HostConfig.Ulimits.Hard",
        ],
    ),
    (
        "limits_that_no_option_of_ours_has_are_in_force_or_a_warning",
        &[
            "create HostConfig.BlkioWeight",
            "create HostConfig.CpuPeriod",
            "create HostConfig.CpuQuota",
            "create HostConfig.CpusetMems",
            "create HostConfig.MemorySwappiness",
            "create HostConfig.OomKillDisable",
        ],
    ),
    (
        "rates_of_a_device_are_in_force_or_a_warning",
        &[
            "create HostConfig.BlkioWeightDevice.Path",
            "create HostConfig.BlkioWeightDevice.Weight",
            "create HostConfig.BlkioDeviceReadBps.Path",
            "create HostConfig.BlkioDeviceReadBps.Rate",
            "create HostConfig.BlkioDeviceWriteBps.Path",
            "create HostConfig.BlkioDeviceWriteBps.Rate",
            "create HostConfig.BlkioDeviceReadIOps.Path",
            "create HostConfig.BlkioDeviceReadIOps.Rate",
            "create HostConfig.BlkioDeviceWriteIOps.Path",
            "create HostConfig.BlkioDeviceWriteIOps.Rate",
        ],
    ),
    (
        "a_device_may_be_used_as_it_was_asked_for",
        &[
            "create HostConfig.Devices.PathOnHost",
            "create HostConfig.Devices.PathInContainer",
            "create HostConfig.Devices.CgroupPermissions",
            "create HostConfig.DeviceCgroupRules",
        ],
    ),
    (
        "what_is_not_there_is_refused",
        &[
            "create HostConfig.DeviceRequests.Driver",
            "create HostConfig.DeviceRequests.DeviceIDs",
            "create HostConfig.DeviceRequests.Count",
            "create HostConfig.DeviceRequests.Capabilities",
            "create HostConfig.DeviceRequests.Options",
        ],
    ),
    (
        "a_network_gives_the_addresses_that_it_was_told_to",
        &[
            "create MacAddress",
            "create NetworkingConfig.EndpointsConfig.IPAMConfig.IPv6Address",
            "connect EndpointConfig.IPAMConfig.IPv4Address",
            "connect EndpointConfig.IPAMConfig.IPv6Address",
            "connect EndpointConfig.MacAddress",
            "disconnect Force",
            "network EnableIPv4",
            "network EnableIPv6",
            "network Attachable",
            "network Options",
            "network IPAM.Config.IPRange",
            "network IPAM.Config.Gateway",
            "network IPAM.Config.AuxiliaryAddresses",
        ],
    ),
    (
        "containers_of_one_network_reach_each_other_and_no_others",
        &[
            "create NetworkingConfig.EndpointsConfig.IPAMConfig.IPv4Address",
            "create NetworkingConfig.EndpointsConfig.Aliases",
            "create NetworkingConfig.EndpointsConfig.MacAddress",
            "network Name",
            "network Labels",
            "network IPAM.Config.Subnet",
        ],
    ),
    ("an_internal_network_leads_nowhere", &["network Internal"]),
    (
        "an_interface_has_the_name_and_the_settings_that_it_was_given",
        &["create NetworkingConfig.EndpointsConfig.DriverOpts", "connect EndpointConfig.DriverOpts"],
    ),
    (
        "an_interface_has_the_further_addresses_that_it_was_given",
        &[
            "create NetworkingConfig.EndpointsConfig.IPAMConfig.LinkLocalIPs",
            "connect EndpointConfig.IPAMConfig.LinkLocalIPs",
        ],
    ),
    ("the_docker_client_makes_lists_and_removes_networks", &["network Driver"]),
    (
        "a_container_is_connected_and_disconnected_while_it_runs",
        &[
            "create NetworkingConfig.EndpointsConfig.GwPriority",
            "connect Container",
            "connect EndpointConfig.Aliases",
            "connect EndpointConfig.GwPriority",
            "disconnect Container",
        ],
    ),
    (
        "multiplexed_with_input_user_directory_and_environment",
        &[
            "exec User",
            "exec AttachStdin",
            "exec AttachStdout",
            "exec AttachStderr",
            "exec Env",
            "exec WorkingDir",
            "exec Cmd",
        ],
    ),
    ("on_a_terminal_that_is_resized", &["exec Tty"]),
    ("an_exec_may_have_all_rights_and_keys_to_leave_by", &["exec Privileged", "exec DetachKeys"]),
    ("detached_and_refused", &["exec start Detach"]),
    ("a_volumes_life", &["volume Name", "volume Labels"]),
    ("a_directory_of_the_host_and_a_disk_are_volumes", &["volume DriverOpts"]),
    (
        "a_driver_that_nobody_has_is_not_found",
        &[
            "volume Driver",
            "create HostConfig.VolumeDriver",
            "create HostConfig.Mounts.VolumeOptions.DriverConfig.Name",
        ],
    ),
    (
        "a_mount_makes_the_volume_with_its_options_and_does_not_change_another",
        &["create HostConfig.Mounts.VolumeOptions.DriverConfig.Options"],
    ),
    ("those_in_one_cgroup_share_its_limit_and_leave_it_behind", &["create HostConfig.CgroupParent"]),
    ("log_options_change_while_it_speaks", &["update LogConfig"]),
    (
        "limits_change_while_a_container_runs_and_stay_changed",
        &["update Memory", "update NanoCpus", "update CpusetCpus", "update MemorySwap", "update PidsLimit"],
    ),
    (
        "an_update_changes_every_limit_that_it_may",
        &[
            "update CpuShares",
            "update BlkioWeight",
            "update CpuPeriod",
            "update CpuQuota",
            "update CpusetMems",
            "update MemoryReservation",
        ],
    ),
    (
        "an_update_gives_another_policy_which_holds_for_what_runs",
        &["update RestartPolicy.Name", "update RestartPolicy.MaximumRetryCount"],
    ),
];

/// The paths of the fields that act.
fn acting(fields: Fields, parent: &str, found: &mut BTreeSet<String>) {
    for (name, field) in fields {
        let path = if parent.ends_with(' ') { format!("{parent}{name}") } else { format!("{parent}.{name}") };
        match field {
            Field::Acts => drop(found.insert(path)),
            Field::Within(fields) | Field::Each(fields) | Field::Values(fields) => acting(fields, &path, found),
            Field::Ignored | Field::Refused | Field::RefusedUnless(_) => {}
        }
    }
}

/// The names of all functions in the end-to-end tests.
fn functions(directory: &Path, found: &mut BTreeSet<String>) {
    for path in std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let lines =
                text.lines().filter_map(|line| line.trim_start().trim_start_matches("async ").strip_prefix("fn "));
            found.extend(lines.filter_map(|line| Some(line.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_field_that_acts_has_a_test_that_shows_it() {
    let mut wanted = BTreeSet::new();
    REQUESTS.iter().for_each(|(request, fields)| acting(fields, &format!("{request} "), &mut wanted));
    assert!(wanted.len() > 100, "{}", wanted.len());
    let mut tests = BTreeSet::new();
    functions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbox/tests"), &mut tests);
    let mut shown: BTreeMap<&str, &str> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (test, fields) in SHOWN {
        if !tests.contains(*test) {
            wrong.push(format!("there is no end-to-end test named {test}"));
        }
        for field in *fields {
            if !wanted.contains(*field) {
                wrong.push(format!("{field} does not act, and {test} shows it"));
            }
            if let Some(other) = shown.insert(field, test) {
                wrong.push(format!("{field} is shown by {other} and by {test}: one is enough"));
            }
        }
    }
    let missing = wanted.iter().filter(|field| !shown.contains_key(field.as_str()));
    wrong.extend(missing.map(|field| format!("{field} acts, and no test is named that shows it")));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
