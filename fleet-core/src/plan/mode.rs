//! Who decides about an instance: the most restrictive of the fleet's, the tenant's and the label's mode.

use super::window::Policy;
use crate::model::labels::LabelMode;
use crate::model::{GlobalMode, TenantMode, UpdateConfig};

/// The mode that holds.
///
/// A tenant's config wins over `fleet.policy`, which serves where there is none; without either the label's mode holds,
/// else `notify`. The label can only restrict what config or policy say. A paused fleet is not a mode: see
/// [`super::Held::Paused`].
#[must_use]
pub fn effective_mode(
    global: GlobalMode,
    config: Option<&UpdateConfig>,
    label: Option<LabelMode>,
    policy: Option<&Policy>,
) -> LabelMode {
    mode_under(global, config.map(|config| config.mode), label, policy)
}

/// The same with the mode of the tenant's config.
pub(super) fn mode_under(
    global: GlobalMode,
    tenant: Option<TenantMode>,
    label: Option<LabelMode>,
    policy: Option<&Policy>,
) -> LabelMode {
    let base = match (tenant, policy) {
        (Some(TenantMode::Auto), _) => LabelMode::Auto,
        (Some(TenantMode::Manual), _) => LabelMode::Manual,
        (None, Some(Policy::Manual)) => LabelMode::Manual,
        (None, Some(Policy::OnPush | Policy::Nightly | Policy::Cron(_))) => LabelMode::Auto,
        (None, None) => label.unwrap_or(LabelMode::Notify),
    };
    let bound = match global {
        GlobalMode::Manual => LabelMode::Manual,
        GlobalMode::Auto | GlobalMode::Paused => LabelMode::Auto,
    };
    base.min(bound).min(label.unwrap_or(LabelMode::Auto))
}

/// The same from the text of `fleet.policy`; one that cannot be read is none.
#[must_use]
pub(crate) fn mode_of(
    global: GlobalMode,
    config: Option<&UpdateConfig>,
    label: Option<LabelMode>,
    policy: Option<&str>,
) -> LabelMode {
    let policy = policy.and_then(|text| text.parse::<Policy>().ok());
    effective_mode(global, config, label, policy.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: TenantMode) -> UpdateConfig {
        UpdateConfig {
            mode,
            ..UpdateConfig::default()
        }
    }

    #[track_caller]
    fn check(
        global: GlobalMode,
        tenant: Option<TenantMode>,
        label: Option<LabelMode>,
        policy: &str,
        expect: LabelMode,
    ) {
        let config = tenant.map(config);
        let policy: Option<Policy> = (!policy.is_empty()).then(|| policy.parse().unwrap());
        assert_eq!(
            effective_mode(global, config.as_ref(), label, policy.as_ref()),
            expect
        );
    }

    #[test]
    fn the_most_restrictive_holds_and_the_config_beats_the_policy() {
        use GlobalMode as G;
        use LabelMode as L;
        use TenantMode as T;
        check(G::Auto, None, None, "", L::Notify);
        check(G::Auto, None, Some(L::Auto), "", L::Auto);
        check(G::Auto, Some(T::Auto), None, "", L::Auto);
        check(G::Auto, Some(T::Auto), Some(L::Off), "", L::Off);
        check(
            G::Auto,
            Some(T::Auto),
            Some(L::Manual),
            "on-push",
            L::Manual,
        );
        check(
            G::Auto,
            Some(T::Manual),
            Some(L::Auto),
            "on-push",
            L::Manual,
        );
        check(G::Auto, Some(T::Auto), None, "manual", L::Auto);
        check(G::Auto, None, None, "nightly", L::Auto);
        check(G::Auto, None, None, "manual", L::Manual);
        check(G::Auto, None, Some(L::Notify), "on-push", L::Notify);
        check(
            G::Manual,
            Some(T::Auto),
            Some(L::Auto),
            "on-push",
            L::Manual,
        );
        check(G::Manual, None, None, "", L::Notify);
    }
}
