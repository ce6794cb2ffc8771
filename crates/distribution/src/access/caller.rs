//! Who asks, what he may do, and what he is told where he may not.
//!
//! **The rule.** Nothing is looked up before it is known that he may see it, so a repository that somebody may not see answers
//! as one that is not there. Who has not logged in, or shows a token that is not for this, is told how to get one: 401 with the
//! scope that is needed (the distribution project's "Token Scope Documentation", "Resource Provider Use"). Who is known, and
//! will never be allowed it, is told so: 403, `DENIED` (distribution-spec 1.1, "Error Codes"); another token would not help.

use std::sync::Arc;

use serde_json::json;

use crate::access::rights::{Policy, Right};
use crate::access::scope::{self, Granted};
use crate::name::RepositoryName;
use crate::page::query_encoded;
use crate::refusal::{Kind, Refusal};

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// To be somebody: whoever asks whether he may come in has to show it.
    Entrance,
    /// To see the names of repositories.
    Catalog,
    /// To do this there.
    Repository(&'a RepositoryName, Right),
}

/// What a mirror's client calls a repository: by the registry that it means, and its name there. It is told no other name,
/// for what that is here says whether it is kept here at all.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CalledAs<'a> {
    pub(crate) registry: &'a str,
    pub(crate) name: &'a RepositoryName,
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// `None`: he has not said.
    pub(crate) user: Option<String>,
    may: May,
}

#[derive(Debug, Clone)]
enum May {
    /// Everything.
    All,
    /// What is limited, and how he gets more.
    Some { rules: Rules, shown: Shown, challenge: Challenge },
}

/// Who says what is allowed.
#[derive(Debug, Clone)]
enum Rules {
    /// A file of ours.
    Policy(Arc<Policy>),
    /// Another's token alone.
    Token,
}

/// What he has shown to prove who he is.
#[derive(Debug, Clone)]
pub(crate) enum Shown {
    Nothing,
    Password,
    /// For this.
    Token(Granted),
    /// It counts for nothing.
    Bad(Bad),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    Password,
    Token,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allowed,
    /// He may be somebody who may.
    LogIn,
    /// He may, and has a token for less.
    WiderToken,
    Denied,
}

/// `by_token`: where he has shown one.
fn judge(by_rules: bool, by_token: Option<bool>, is_known: bool) -> Verdict {
    match (by_rules, by_token, is_known) {
        (true, None | Some(true), _) => Verdict::Allowed,
        (true, Some(false), _) => Verdict::WiderToken,
        (false, _, true) => Verdict::Denied,
        (false, _, false) => Verdict::LogIn,
    }
}

/// Where tokens are had, and by what the registry is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    pub(crate) realm: String,
    pub(crate) service: String,
}

impl Challenge {
    /// With it, names in scopes are those of that registry: clients keep the query of a realm.
    fn meaning(&self, registry: &str) -> Self {
        let mark = if self.realm.contains('?') { '&' } else { '?' };
        Self { realm: format!("{}{mark}ns={}", self.realm, query_encoded(registry)), ..self.clone() }
    }

    fn field(&self, scope: Option<&str>, error: Option<&str>) -> String {
        // What would end a quoted string cannot be in any of them; if it is, it goes.
        let plain = |text: &str| text.replace(|letter: char| matches!(letter, '"' | '\\') || letter.is_control(), "");
        let mut field = format!("Bearer realm=\"{}\",service=\"{}\"", plain(&self.realm), plain(&self.service));
        for (name, value) in [("scope", scope), ("error", error)] {
            if let Some(value) = value {
                field += &format!(",{name}=\"{}\"", plain(value));
            }
        }
        field
    }
}

impl Caller {
    /// One who may do everything.
    pub(crate) fn trusted(user: Option<String>) -> Self {
        Self { user, may: May::All }
    }

    /// One who may do what the rights say of him, and, if he has shown a token, no more than it is for.
    pub(crate) fn by_policy(policy: Arc<Policy>, user: Option<String>, shown: Shown, challenge: Challenge) -> Self {
        Self { user, may: May::Some { rules: Rules::Policy(policy), shown, challenge } }
    }

    /// One who may do what another's token says.
    pub(crate) fn by_token(user: Option<String>, shown: Shown, challenge: Challenge) -> Self {
        Self { user, may: May::Some { rules: Rules::Token, shown, challenge } }
    }

    /// Refuses what he may not do.
    pub(crate) fn check(&self, need: Need<'_>) -> Result<(), Refusal> {
        let May::Some { rules, shown, challenge } = &self.may else { return Ok(()) };
        told(self.verdict(rules, shown, need), shown, need, challenge)
    }

    /// The same of a repository that is called otherwise than here; `here`: `None`, if there is none that is meant. Who may
    /// not is told one thing, whatever is kept here. Only who may do it everywhere gets to hear that there is none: a right to
    /// some others says nothing of what this one would be called.
    pub(crate) fn check_called(
        &self,
        called: CalledAs<'_>,
        here: Option<&RepositoryName>,
        right: Right,
    ) -> Result<(), Refusal> {
        let May::Some { rules, shown, challenge } = &self.may else { return Ok(()) };
        let Rules::Policy(policy) = rules else {
            // Whose tokens are for what, another one knows, and by the names of here.
            return self.check(here.map_or(Need::Entrance, |here| Need::Repository(here, right)));
        };
        let verdict = match (here, shown) {
            (Some(here), _) => self.verdict(rules, shown, Need::Repository(here, right)),
            (None, Shown::Bad(_)) => Verdict::LogIn,
            (None, _) => judge(policy.is_everywhere(self.user.as_deref(), right), None, self.user.is_some()),
        };
        told(verdict, shown, Need::Repository(called.name, right), &challenge.meaning(called.registry))
    }

    fn verdict(&self, rules: &Rules, shown: &Shown, need: Need<'_>) -> Verdict {
        let token = match shown {
            Shown::Bad(_) => return Verdict::LogIn,
            Shown::Token(granted) => Some(granted),
            Shown::Nothing | Shown::Password => None,
        };
        let is_known = self.user.is_some();
        match (need, rules) {
            (Need::Entrance, _) => judge(!matches!(shown, Shown::Nothing), None, is_known),
            (Need::Catalog, Rules::Policy(_)) => judge(true, token.map(Granted::has_catalog), is_known),
            (Need::Repository(name, right), Rules::Policy(policy)) => {
                let by_rules = policy.rights(self.user.as_deref(), name).has(right);
                judge(by_rules, token.map(|token| token.has(name, right)), is_known)
            }
            // What it would give to others nobody here knows.
            (_, Rules::Token) if token.is_none() => Verdict::LogIn,
            (Need::Catalog, Rules::Token) => judge(true, token.map(Granted::has_catalog), is_known),
            (Need::Repository(name, right), Rules::Token) => {
                judge(true, token.map(|token| token.has(name, right)), is_known)
            }
        }
    }

    /// Whether he may take over what another repository has: if not, he brings it himself, and is not told why
    /// (distribution-spec 1.1, "Mounting a blob from another repository"). Whichever repository it is (`None`) only who may see
    /// them all.
    pub(crate) fn may_mount(&self, from: Option<&RepositoryName>) -> bool {
        match (&self.may, from) {
            (May::All, _) => true,
            (May::Some { .. }, None) => false,
            (May::Some { .. }, Some(from)) => self.check(Need::Repository(from, Right::Pull)).is_ok(),
        }
    }

    /// Whether he sees all repositories; if not, [`Self::sees`] says which.
    pub(crate) fn sees_all(&self) -> bool {
        !matches!(self.may, May::Some { rules: Rules::Policy(_), .. })
    }

    /// Whether the list of repositories has this one for him.
    pub(crate) fn sees(&self, name: &RepositoryName) -> bool {
        match &self.may {
            May::Some { rules: Rules::Policy(policy), .. } => {
                policy.rights(self.user.as_deref(), name).has(Right::Pull)
            }
            May::All | May::Some { rules: Rules::Token, .. } => true,
        }
    }
}

/// What he hears of it.
fn told(verdict: Verdict, shown: &Shown, need: Need<'_>, challenge: &Challenge) -> Result<(), Refusal> {
    let wanted = match need {
        Need::Entrance => None,
        Need::Catalog => Some(scope::needed_for_catalog()),
        Need::Repository(name, right) => Some(scope::needed(name, right)),
    };
    let error = match (verdict, shown) {
        (Verdict::WiderToken, _) => Some("insufficient_scope"),
        (_, Shown::Bad(Bad::Token)) => Some("invalid_token"),
        _ => None,
    };
    match verdict {
        Verdict::Allowed => Ok(()),
        Verdict::Denied => Err(with_detail(need, Kind::Denied, "requested access to the resource is denied")),
        Verdict::LogIn | Verdict::WiderToken => {
            let refusal = with_detail(need, Kind::Unauthorized, "authentication required");
            Err(refusal.with_field("www-authenticate", challenge.field(wanted.as_deref(), error)))
        }
    }
}

fn with_detail(need: Need<'_>, kind: Kind, words: &str) -> Refusal {
    let refusal = Refusal::new(kind, words);
    let detail =
        |of: &str, name: &str, action: &str| json!([{ "Type": of, "Class": "", "Name": name, "Action": action }]);
    match need {
        Need::Entrance => refusal,
        Need::Catalog => refusal.with_detail(detail("registry", "catalog", "*")),
        Need::Repository(name, right) => refusal.with_detail(detail("repository", name.as_str(), right.word())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = "[[rule]]\nrepositories = [\"public/**\"]\npull = [\"@anyone\"]\npush = [\"ann\"]\n\
                         [[rule]]\nrepositories = [\"team/**\"]\npush = [\"ann\"]\n";

    #[test]
    fn what_becomes_of_a_request() {
        use Verdict::*;
        for (by_rules, by_token, is_known, verdict) in [
            (true, None, true, Allowed),
            (true, None, false, Allowed),
            (true, Some(true), true, Allowed),
            (true, Some(false), true, WiderToken),
            (true, Some(false), false, WiderToken),
            (false, Some(true), true, Denied),
            (false, Some(false), true, Denied),
            (false, None, true, Denied),
            (false, Some(true), false, LogIn),
            (false, None, false, LogIn),
        ] {
            assert_eq!(judge(by_rules, by_token, is_known), verdict, "{by_rules} {by_token:?} {is_known}");
        }
    }

    fn told(caller: &Caller, need: Need<'_>) -> String {
        shown(caller.check(need))
    }

    fn shown(checked: Result<(), Refusal>) -> String {
        match checked {
            Ok(()) => "yes".to_owned(),
            Err(refusal) => {
                let field = refusal.fields.first().map_or("", |(_, value)| value);
                let rest = field.strip_prefix("Bearer realm=\"r\",service=\"s\"").unwrap_or(field);
                format!("{}{rest}", refusal.kind.told().0.as_u16())
            }
        }
    }

    #[test]
    fn who_may_not_is_told_how_he_might_or_that_he_may_not() {
        let challenge = || Challenge { realm: "r".to_owned(), service: "s".to_owned() };
        let policy = Arc::new(Policy::of(RULES));
        let caller =
            |user: Option<&str>, shown| Caller::by_policy(policy.clone(), user.map(str::to_owned), shown, challenge());
        let token = |scope: &str| Shown::Token(Granted::parse(scope));
        let (public, team): (RepositoryName, RepositoryName) = ("public/a".parse().unwrap(), "team/a".parse().unwrap());
        let (pull, push) = (Need::Repository(&public, Right::Pull), Need::Repository(&public, Right::Push));
        let (team_pull, delete) = (Need::Repository(&team, Right::Pull), Need::Repository(&public, Right::Delete));
        let nobody = caller(None, Shown::Nothing);
        assert_eq!(told(&nobody, Need::Entrance), "401");
        assert_eq!(told(&nobody, Need::Catalog), "yes");
        assert_eq!(told(&nobody, pull), "yes");
        assert_eq!(told(&nobody, push), "401,scope=\"repository:public/a:pull,push\"");
        assert_eq!(told(&nobody, team_pull), "401,scope=\"repository:team/a:pull\"");
        let eve = caller(Some("eve"), Shown::Password);
        assert_eq!(told(&eve, Need::Entrance), "yes");
        assert_eq!(
            (told(&eve, pull), told(&eve, push), told(&eve, team_pull)),
            ("yes".into(), "403".into(), "403".into())
        );
        let ann = caller(Some("ann"), token("repository:public/a:pull,push,delete"));
        assert_eq!((told(&ann, push), told(&ann, delete)), ("yes".into(), "403".into()));
        assert_eq!(told(&ann, team_pull), "401,scope=\"repository:team/a:pull\",error=\"insufficient_scope\"");
        assert_eq!(told(&ann, Need::Catalog), "401,scope=\"registry:catalog:*\",error=\"insufficient_scope\"");
        // A token that nobody has logged in for opens what is open to everyone, and `GET /v2/`.
        let token_of_nobody = caller(None, token("repository:public/a:pull"));
        assert_eq!(
            (told(&token_of_nobody, pull), told(&token_of_nobody, Need::Entrance)),
            ("yes".into(), "yes".into())
        );
        let old = caller(None, Shown::Bad(Bad::Token));
        assert_eq!(told(&old, pull), "401,scope=\"repository:public/a:pull\",error=\"invalid_token\"");
        assert_eq!(told(&caller(None, Shown::Bad(Bad::Password)), Need::Entrance), "401");
        // Another's token says all.
        let other = |shown| Caller::by_token(Some("eve".to_owned()), shown, challenge());
        assert_eq!(told(&other(token("repository:team/a:pull")), team_pull), "yes");
        assert_eq!(told(&other(Shown::Nothing), team_pull), "401,scope=\"repository:team/a:pull\"");
        let lacks = "401,scope=\"repository:public/a:pull,push\",error=\"insufficient_scope\"";
        assert_eq!(told(&other(token("repository:public/a:pull")), push), lacks);
        // Mounts, and the list.
        assert!(nobody.may_mount(Some(&public)) && !nobody.may_mount(Some(&team)) && !nobody.may_mount(None));
        assert!(nobody.sees(&public) && !nobody.sees(&team) && !nobody.sees_all());
        assert!(Caller::trusted(None).may_mount(None) && Caller::trusted(None).sees_all());
    }

    #[test]
    fn who_may_not_see_a_mirrored_repository_does_not_learn_whether_there_is_one() {
        let challenge = || Challenge { realm: "r".to_owned(), service: "s".to_owned() };
        let everywhere = "[[rule]]\nrepositories = [\"**\"]\npull = [\"root\"]\n";
        let policy = Arc::new(Policy::of(&format!("{RULES}{everywhere}")));
        let caller =
            |user: Option<&str>, shown| Caller::by_policy(policy.clone(), user.map(str::to_owned), shown, challenge());
        let name = |text: &str| text.parse::<RepositoryName>().unwrap();
        let (there, team, public) = (name("library/debian"), name("team/library/debian"), name("public/debian"));
        let called = CalledAs { registry: "docker.io:443", name: &there };
        let pull = |caller: &Caller, here| caller.check_called(called, here, Right::Pull);
        let token = || Shown::Token(Granted::default());
        let all = [
            (caller(None, Shown::Nothing), "401"),
            (caller(None, token()), "401"),
            (caller(None, Shown::Bad(Bad::Token)), "401"),
            (caller(None, Shown::Bad(Bad::Password)), "401"),
            (caller(Some("eve"), Shown::Password), "403"),
            (caller(Some("eve"), token()), "403"),
        ];
        for (caller, want) in &all {
            let (kept, none) = (pull(caller, Some(&team)), pull(caller, None));
            assert_eq!(kept, none, "to the letter");
            let refusal = format!("{:?}", kept.clone().unwrap_err());
            assert!(refusal.contains("library/debian") && !refusal.contains("team/"), "{refusal}");
            assert!(shown(kept).starts_with(want), "{refusal}");
        }
        let field = pull(&all[0].0, None).unwrap_err().fields.remove(0).1;
        let want = "Bearer realm=\"r?ns=docker.io%3A443\",service=\"s\",scope=\"repository:library/debian:pull\"";
        assert_eq!(field, want);
        // Who may see that there is one, or all that there is, gets further.
        assert_eq!(pull(&all[0].0, Some(&public)), Ok(()));
        let ann = caller(Some("ann"), Shown::Password);
        assert_eq!((shown(pull(&ann, Some(&team))), shown(pull(&ann, None))), ("yes".into(), "403".into()));
        for shown in [Shown::Password, token()] {
            assert_eq!(pull(&caller(Some("root"), shown), None), Ok(()));
        }
        assert_eq!(pull(&Caller::trusted(None), None), Ok(()));
        // Of another's tokens nobody here knows who gets which.
        let other = Caller::by_token(None, Shown::Nothing, challenge());
        assert_eq!(shown(pull(&other, Some(&team))), "401,scope=\"repository:team/library/debian:pull\"");
    }

    #[test]
    fn a_challenge_cannot_be_broken_out_of() {
        let challenge = Challenge { realm: "https://a\",x=\"y\r\n".to_owned(), service: "s\\".to_owned() };
        assert_eq!(challenge.field(None, None), "Bearer realm=\"https://a,x=y\",service=\"s\"");
    }
}
