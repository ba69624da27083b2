//! What the demo plays: an example's catalog, its tenants, and the commands to try.

use crate::cli::Example;
use std::fmt::Write;

/// An example on stage.
pub struct Scene {
    /// What it is.
    pub title: &'static str,
    /// The example's catalog.
    pub catalog: &'static str,
    /// Where it stands in the repository.
    pub catalog_name: &'static str,
    /// Its tenants.
    pub actors: &'static [Actor],
    /// What to try, in order.
    steps: &'static [Step],
    /// Who makes the traffic in the background.
    pub extras: &'static [Extra],
    /// A request that takes a while, once at the beginning.
    pub opening: Option<Extra>,
    /// The meter whose moves are told while the demo runs.
    pub watched: Option<&'static str>,
}

/// A tenant of the demo.
pub struct Actor {
    /// Its id.
    pub tenant: &'static str,
    /// What it bought.
    pub plan: &'static str,
    /// In a few words.
    pub about: &'static str,
    /// What it used already.
    pub used: &'static [(&'static str, i64)],
}

impl Actor {
    /// Its API key.
    pub fn key(&self) -> String {
        key(self.tenant)
    }
}

/// The API key of a tenant of the demo.
pub fn key(tenant: &str) -> String {
    format!("demo-key-of-{tenant}")
}

/// A request of the background traffic.
pub struct Extra {
    /// Whose.
    pub tenant: &'static str,
    /// How.
    pub method: &'static str,
    /// Where.
    pub path: &'static str,
    /// With what.
    pub body: &'static str,
}

/// A command to try.
struct Step {
    says: &'static str,
    /// Arguments of `curl`, with `{gateway}`, `{api}`, `{admin}` and `{key:TENANT}` to be filled in.
    curl: &'static str,
}

/// Where the demo runs.
pub struct Places {
    /// The gateway.
    pub gateway: String,
    /// The API.
    pub api: String,
    /// The admin key.
    pub admin_key: &'static str,
}

/// The scene of an example.
pub fn of(example: Example) -> Scene {
    match example {
        Example::Chat => CHAT,
        Example::Bakery => BAKERY,
    }
}

impl Scene {
    /// What the demo says when it is ready.
    pub fn shown(&self, places: &Places) -> String {
        let mut text = String::new();
        let width = self.actors.iter().map(|actor| actor.tenant.len()).max().unwrap_or(0);
        // Writing into a String can't fail.
        let _ = writeln!(
            text,
            "{}\n\n  gateway  {}  in front of a sample upstream\n  API      {}\n  ledger   in memory: gone when the demo ends\n  catalog  {}\n",
            self.title, places.gateway, places.api, self.catalog_name
        );
        for actor in self.actors {
            let _ = writeln!(text, "  {:<width$}  on {}: {}", actor.tenant, actor.plan, actor.about);
        }
        let _ = writeln!(text, "\nTry these in another terminal, in this order:");
        for (number, step) in self.steps.iter().enumerate() {
            let _ = write!(text, "\n# {}. {}\ncurl {}\n", number + 1, step.says, self.filled(step.curl, places));
        }
        let _ = write!(
            text,
            "\nA little traffic runs in the background{}. Figures: {}/metrics. Ctrl-C ends all of it.",
            self.watched.map_or("", |_| "; time that is used is told here as it moves"),
            places.api
        );
        text
    }

    fn filled(&self, template: &str, places: &Places) -> String {
        let text = template
            .replace("{gateway}", &places.gateway)
            .replace("{api}", &places.api)
            .replace("{admin}", &format!("-H 'authorization: Bearer {}'", places.admin_key))
            .replace("{json}", "-H 'content-type: application/json'");
        self.actors.iter().fold(text, |text, actor| {
            let header = format!("-H 'authorization: Bearer {}'", actor.key());
            text.replace(&format!("{{key:{}}}", actor.tenant), &header)
        })
    }
}

const CHAT: Scene = Scene {
    title: "Tidegate demo: an AI chat product with a free, a basic, a professional and an enterprise plan.",
    catalog: include_str!("../../../../examples/chat/tidegate.toml"),
    catalog_name: "examples/chat/tidegate.toml",
    actors: &[
        Actor { tenant: "acme", plan: "free", about: "50 messages a day, none used yet", used: &[] },
        Actor { tenant: "initech", plan: "free", about: "today's 50 messages are used up", used: &[("messages", 50)] },
        Actor {
            tenant: "hooli",
            plan: "free",
            about: "has conversed for all but 12 s of its hour a month",
            used: &[("conversation_time", 3_588_000)],
        },
        Actor {
            tenant: "umbrella",
            plan: "basic",
            about: "has conversed for all but 4 s of its five hours a month",
            used: &[("conversation_time", 17_996_000)],
        },
        Actor { tenant: "globex", plan: "professional", about: "busy in the background", used: &[("messages", 140)] },
    ],
    steps: &[
        Step {
            says: "Passes (200), and costs acme one message; the RateLimit headers say how many are left.",
            curl: r#"-i {gateway}/v1/chat/completions {key:acme} {json} -d '{"model":"small","messages":[{"role":"user","content":"Hello"}]}'"#,
        },
        Step {
            says: "Passes (200) as a stream, word by word; one message more.",
            curl: r#"-N {gateway}/v1/chat/completions {key:acme} {json} -d '{"model":"small","stream":true,"messages":[{"role":"user","content":"Hello"}]}'"#,
        },
        Step {
            says: "Refused (402): the free plan has no analytics, and waiting would not help.",
            curl: "-i {gateway}/tenants/acme/analytics/weekly {key:acme}",
        },
        Step {
            says: "Refused (429): initech has used up its messages of today; Retry-After says when there are new ones.",
            curl: r#"-i {gateway}/v1/chat/completions {key:initech} {json} -d '{"model":"small","messages":[{"role":"user","content":"Hello"}]}'"#,
        },
        Step {
            says: "What acme used (200): two messages; what was refused was not charged.",
            curl: "{api}/api/v1/tenants/acme/usage {key:acme}",
        },
        Step {
            says: "acme upgrades (200): a change of plan works on the next request and resets nothing.",
            curl: r#"-X PUT {api}/api/v1/tenants/acme {admin} {json} -d '{"plan":"professional"}'"#,
        },
        Step { says: "Passes now (200).", curl: "-i {gateway}/tenants/acme/analytics/weekly {key:acme}" },
        Step {
            says: "Streams (200), is warned at once that hooli's time runs out, and is cut after 12 s by an event that says why.",
            curl: r#"-N {gateway}/v1/conversations {key:hooli} {json} -d '{"seconds":60}'"#,
        },
        Step {
            says: "Refused (429): hooli's hour is used up, to the millisecond.",
            curl: r#"-i {gateway}/v1/conversations {key:hooli} {json} -d '{"seconds":60}'"#,
        },
        Step {
            says: "Streams (200) for 8 s though umbrella has 4 s left: its plan lets what runs finish, and records it.",
            curl: r#"-N {gateway}/v1/conversations {key:umbrella} {json} -d '{"seconds":8}'"#,
        },
        Step { says: "Every request that was refused (200).", curl: "{api}/api/v1/denials {admin}" },
    ],
    extras: &[
        Extra { tenant: "globex", method: "POST", path: "/v1/chat/completions", body: r#"{"model":"large"}"# },
        Extra {
            tenant: "globex",
            method: "POST",
            path: "/v1/chat/completions",
            body: r#"{"model":"small","stream":true}"#,
        },
        Extra { tenant: "globex", method: "GET", path: "/tenants/globex/analytics/daily", body: "" },
        Extra { tenant: "initech", method: "POST", path: "/v1/chat/completions", body: r#"{"model":"small"}"# },
    ],
    opening: Some(Extra { tenant: "globex", method: "POST", path: "/v1/conversations", body: r#"{"seconds":20}"# }),
    watched: Some("conversation_time"),
};

const BAKERY: Scene = Scene {
    title: "Tidegate demo: software for bakeries with a starter, a professional and an enterprise plan.",
    catalog: include_str!("../../../../examples/bakery/tidegate.toml"),
    catalog_name: "examples/bakery/tidegate.toml",
    actors: &[
        Actor { tenant: "la-espiga", plan: "starter", about: "35 of 50 products, no forecast yet today", used: &[] },
        Actor {
            tenant: "el-horno",
            plan: "starter",
            about: "all 50 products and today's 10 forecasts are used up",
            used: &[("forecasts", 10)],
        },
        Actor { tenant: "panissimo", plan: "professional", about: "busy in the background", used: &[] },
    ],
    steps: &[
        Step {
            says: "Passes (200), and costs la-espiga one forecast and one API call.",
            curl: r#"-i {gateway}/api/v1/tenants/la-espiga/forecasting/forecasts {key:la-espiga} {json} -d '{"product":"baguette"}'"#,
        },
        Step {
            says: "Refused (402): the starter plan has no advanced analytics; the answer says what an upgrade brings.",
            curl: "-i {gateway}/api/v1/tenants/la-espiga/forecasting/analytics/advanced {key:la-espiga}",
        },
        Step {
            says: "Refused (402): el-horno has as many products as its plan allows, and waiting would not help.",
            curl: r#"-i {gateway}/api/v1/tenants/el-horno/products {key:el-horno} {json} -d '{"name":"brioche"}'"#,
        },
        Step {
            says: "Refused (429): el-horno has used up its forecasts of today; Retry-After says when there are new ones.",
            curl: r#"-i {gateway}/api/v1/tenants/el-horno/forecasting/forecasts {key:el-horno} {json} -d '{"product":"brioche"}'"#,
        },
        Step { says: "What la-espiga uses (200).", curl: "{api}/api/v1/tenants/la-espiga/usage {key:la-espiga}" },
        Step {
            says: "When la-espiga will reach each limit (200), by sixty days of history: in five or six weeks it has all its products.",
            curl: "{api}/api/v1/usage-forecast?tenant_id=la-espiga {key:la-espiga}",
        },
        Step {
            says: "Who of the twenty-five bakeries reaches a limit first (200).",
            curl: "'{api}/api/v1/usage-forecast/fleet?limit=10' {admin}",
        },
        Step {
            says: "la-espiga upgrades (200): a change of plan works on the next request and resets nothing.",
            curl: r#"-X PUT {api}/api/v1/tenants/la-espiga {admin} {json} -d '{"plan":"professional"}'"#,
        },
        Step {
            says: "Passes now (200).",
            curl: "-i {gateway}/api/v1/tenants/la-espiga/forecasting/analytics/advanced {key:la-espiga}",
        },
        Step { says: "Every request that was refused (200).", curl: "{api}/api/v1/denials {admin}" },
    ],
    extras: &[
        Extra { tenant: "panissimo", method: "GET", path: "/api/v1/tenants/panissimo/products", body: "" },
        Extra {
            tenant: "panissimo",
            method: "POST",
            path: "/api/v1/tenants/panissimo/forecasting/forecasts",
            body: r#"{"product":"ciabatta"}"#,
        },
        Extra {
            tenant: "panissimo",
            method: "GET",
            path: "/api/v1/tenants/panissimo/forecasting/analytics/weekly",
            body: "",
        },
        Extra { tenant: "el-horno", method: "GET", path: "/api/v1/tenants/el-horno/products", body: "" },
    ],
    opening: None,
    watched: None,
};
