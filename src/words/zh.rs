//! 简体中文。

use std::fmt::Write;
use std::time::Duration;

use super::{
    AgentState, Answer, Back, Busy, Done, Expired, Found, Held, LinkState, MenuItem, Paused, Restart, State, Step,
    Updates, Wait, Words, millis,
};
use crate::chat::{Conversation, NotSent};

pub(super) struct Chinese;

impl Words for Chinese {
    fn help(&self) -> String {
        "/status – 查看运行状态\n\
         /version – 查看版本\n\
         /whoami – 查看你在这里的身份\n\
         /agents – 列出智能体\n\
         /platforms – 列出平台\n\
         /new [AGENT] – 开始新会话，也可以换一个智能体\n\
         /stop – 停止正在生成的回答\n\
         /retry – 重新提问上一个问题\n\
         /approve [N]、/deny [N] – 答复智能体的请求\n\
         管理员命令：\n\
         /platform pause NAME、/platform resume NAME – 暂停或恢复某个平台\n\
         /restart [force] – 原地重启网关\n\
         /reload – 原地重启并重新读取配置\n\
         /update [check | VERSION] – 更新到较新的版本\n\
         /update revert – 回退到上一个版本\n\
         /update hold [TIME | DATE]、/update unhold – 暂停或恢复自动更新\n\
         其他内容都会转给智能体。"
            .to_owned()
    }

    fn menu_item(&self, item: MenuItem) -> &'static str {
        match item {
            MenuItem::Help => "帮助",
            MenuItem::Status => "运行状况",
            MenuItem::New => "开始新对话",
            MenuItem::Stop => "停止回答",
            MenuItem::Retry => "重试上一条消息",
            MenuItem::Agents => "智能体列表",
            MenuItem::Platforms => "平台列表",
            MenuItem::Approve => "批准请求",
            MenuItem::Deny => "拒绝请求",
            MenuItem::Whoami => "我的 ID",
            MenuItem::Version => "版本",
            MenuItem::Restart => "重启网关",
            MenuItem::Update => "更新网关",
        }
    }

    fn stranger(&self, id: &str) -> String {
        format!("你没有权限使用这个机器人。你在这里的 ID 是 {id}。")
    }

    fn pairing_code(&self, code: &str, platform: &str) -> String {
        format!(
            "你还没有权限使用这个机器人。请把下面的配对码交给它的管理者：\n{code}\n\
             配对码一小时内有效，管理者用这条命令批准：hermes pairing approve {platform} {code}"
        )
    }

    fn pairing_approved(&self) -> &'static str {
        "✅ 已获批准，你现在可以使用这个机器人了。"
    }

    fn not_admin(&self) -> &'static str {
        "只有管理员可以使用这个命令。"
    }

    fn usage(&self, usage: &str) -> String {
        format!("用法：{usage}")
    }

    fn one_argument(&self) -> &'static str {
        "用法：最多一个参数，详见 /help"
    }

    fn whoami(&self, name: &str, id: &str, is_admin: bool, conversation: &Conversation) -> String {
        let role = if is_admin { "管理员" } else { "普通用户" };
        format!("{name}（ID {id}），{role}，所在会话 {conversation}")
    }

    fn interrupted(&self) -> &'static str {
        "回答你的消息时网关被强行终止，剩余的回答已丢失；发送 /retry 可重新提问"
    }

    fn stopping(&self) -> &'static str {
        "网关正在停止"
    }

    fn stop_reason(&self, reason: &str) -> String {
        match reason {
            "max_tokens" => "回答达到了模型的长度上限".to_owned(),
            "max_turn_requests" => "智能体在这一轮中的模型请求次数达到了上限".to_owned(),
            "refusal" => "智能体拒绝继续".to_owned(),
            other => format!("智能体已停止：{other}"),
        }
    }

    fn command_lost(&self, command: &str) -> String {
        format!("⚠ 网关在执行你的 {command} 之前被强行终止。如果仍然需要，请重新发送。")
    }

    fn stale(&self) -> &'static str {
        "⚠ 网关在一天多以前停止运行，你的上一条消息没有得到回答。发送 /retry 可重新提问。"
    }

    fn database_damaged(&self, aside: &str) -> String {
        format!(
            "⚠ 数据库已损坏，原文件保留为 {aside}，现已启用新的数据库：其中等待处理的消息已丢失，智能体会开始新的会话。"
        )
    }

    fn agent_gone(&self, gone: &str, now: &str) -> String {
        format!("⚠ 智能体“{gone}”已不在配置中，改由智能体“{now}”在新会话中回答。")
    }

    fn session_lost(&self) -> &'static str {
        "⚠ 智能体无法加载之前的会话，将从空白会话开始。"
    }

    fn agent_down(&self, agent: &str, reason: &str, again_in: Duration) -> String {
        format!(
            "⚠ 智能体“{agent}”没有运行（{reason}），{} 秒后会重新启动。你的消息正在等待处理。",
            again_in.as_secs().max(1)
        )
    }

    fn queue_full(&self, limit: usize) -> String {
        format!("这里已有 {limit} 条消息在等待，这一条没有收下。请稍后再发。")
    }

    fn nothing_to_stop(&self) -> &'static str {
        "当前没有正在生成的回答。"
    }

    fn nothing_to_retry(&self) -> &'static str {
        "没有可以重新提问的内容。"
    }

    fn new_session(&self, agent: &str) -> String {
        format!("已与智能体“{agent}”开始新会话。")
    }

    fn new_while_running(&self) -> &'static str {
        "还有回答正在生成，请先发送 /stop。"
    }

    fn unknown_agent(&self, agent: &str, known: &[&str]) -> String {
        format!("没有名为“{agent}”的智能体。可用的有：{}", known.join("、"))
    }

    fn permission(&self, again: bool, title: &str, answers: &[Answer<'_>]) -> String {
        let how =
            if again { "网关曾被强行终止，智能体仍在等待许可" } else { "智能体请求许可" };
        let mut text = format!("🔐 {how}：{title}\n");
        for Answer { command, name } in answers {
            let _infallible = writeln!(text, "{command} – {name}");
        }
        text.push_str("只发送 /approve 或 /deny 则仅对这一次有效。");
        text
    }

    fn deny(&self) -> &'static str {
        "拒绝"
    }

    fn permission_expired(&self, title: &str, why: Expired) -> String {
        match why {
            Expired::TurnOver => format!("⌛ 已无需答复：{title}。提出请求的这一轮已经结束。"),
            Expired::AgentEnded => format!("⌛ 已无法答复：{title}。提出请求的智能体已经退出。"),
            Expired::Unanswered(after) => {
                format!("⌛ {} 分钟内无人答复，已拒绝：{title}", after.as_secs() / 60)
            }
        }
    }

    fn permission_gone(&self) -> &'static str {
        "⌛ 这个请求已不再等待答复。"
    }

    fn no_such_option(&self) -> &'static str {
        "没有这个选项。"
    }

    fn answered(&self, title: &str, option: Option<&str>) -> String {
        format!("{}：{title}", option.unwrap_or("已拒绝"))
    }

    fn nothing_to_answer(&self) -> &'static str {
        "智能体目前没有等待答复的请求。"
    }

    fn handoff_begins(&self, kind: &str) -> &'static str {
        match kind {
            "update" => "♻ 正在查找新版本…",
            "revert" => "♻ 正在回退到上一个版本…",
            "reload" => "♻ 正在重新加载配置…",
            _ => "♻ 正在重启网关…",
        }
    }

    fn step(&self, step: &Step) -> String {
        match step {
            Step::Looking => "正在查找版本".to_owned(),
            Step::Downloading(None) => "正在下载".to_owned(),
            Step::Downloading(Some(bytes)) => format!("正在下载（{} kB）", bytes.div_ceil(1000)),
            Step::Verifying => "正在校验摘要和签名".to_owned(),
            Step::Unpacking => "正在解压".to_owned(),
            Step::Staged => "校验通过，已准备就绪；正在替换运行中的程序".to_owned(),
            Step::Waiting(wait) => format!("正在等待{}", waited_for(wait)),
        }
    }

    fn handoff_done(&self, done: &Done<'_>) -> String {
        let Done { from, to, pid, turns, .. } = done;
        if done.is_dry_run {
            return format!("✅ {to} 可以接替运行。没有替换任何内容。");
        }
        let carried = format!("进程不变（PID {pid}），{turns} 轮对话继续进行，中断 {}", millis(done.blackout_us));
        match done.kind {
            "update" => format!("✅ 已更新 {from} → {to}，{carried}"),
            "revert" => format!("✅ 已回退 {from} → {to}，{carried}"),
            "reload" => format!("♻ 已重新加载 {to}，{carried}"),
            _ => format!("♻ 已重启 {to}，{carried}"),
        }
    }

    fn handoff_failed(&self, kind: &str, reason: &str, running: &str) -> String {
        format!("❌ {}失败：{reason}\n{running} 照常运行。", named(kind))
    }

    fn came_back(&self, back: &Back<'_>) -> String {
        let Back { failed, reason, running, pid, turns, .. } = back;
        let what = match back.kind {
            "update" => format!("更新到 {failed} "),
            kind => named(kind).to_owned(),
        };
        format!("❌ {what}失败：{reason}\n{running} 已恢复运行（PID {pid}），{turns} 轮对话继续进行。")
    }

    fn restarted_anew(&self, kind: &str, pid: u32) -> String {
        format!("⚠ 进程在{}过程中被强行终止，现已重新启动并恢复服务（PID {pid}）。", named(kind))
    }

    fn updated_anew(&self, from: &str, to: &str, pid: u32) -> String {
        format!("✅ 已更新 {from} → {to}；进程中途被强行终止，现已重新启动（PID {pid}）")
    }

    fn handoff_stopped(&self, kind: &str, why: &str) -> String {
        format!("⏹ {}已取消：网关正在停止（{why}）。", named(kind))
    }

    fn not_now(&self, why: &Busy) -> String {
        match why {
            Busy::UnderWay { kind, who, phase, secs, hurries } => {
                let hurries = if *hurries { "，现在起不再等待" } else { "" };
                let (kind, phase) = (named(kind), phase_named(phase));
                format!("⏳ 暂时无法执行：{who} 发起的{kind}正在进行（{phase}，已 {secs} 秒）{hurries}。")
            }
            Busy::AgentLeaves(agent) => {
                format!("⏳ 暂时无法执行：智能体“{agent}”已不在配置中，正在停止；请稍后再试。")
            }
        }
    }

    fn is_newest(&self, running: &str) -> String {
        format!("{running} 已是最新版本。")
    }

    fn found(&self, found: &Found, running: &str) -> String {
        match found {
            Found::Newer(version) => format!("有新版本 {version}，当前运行 {running}。发送 /update 即可安装。"),
            Found::FailedBefore(version, reason) => {
                format!(
                    "{version} 曾在这里运行失败（{reason}）；发送 /update {version} 可再试一次。当前运行 {running}。"
                )
            }
            Found::Nothing => self.is_newest(running),
            Found::Unknown(reason) => format!("❌ 无法查找版本：{reason}"),
        }
    }

    fn available(&self, version: &str, running: &str, notes_url: Option<&str>) -> String {
        let notes = notes_url.map_or(String::new(), |url| format!("\n更新说明：{url}"));
        format!("🆕 有新版本 hermes {version}，当前运行 {running}。发送 /update 即可安装。{notes}")
    }

    fn by_itself(&self, told: &str) -> String {
        format!("{told}\n（这是自动更新，没有人提出要求。发送 /update hold 可暂停自动更新。）")
    }

    fn held(&self, what: Held<'_>) -> String {
        match what {
            Held::Until(None) => "⏸ 自动更新已暂停，发送 /update unhold 可恢复。".to_owned(),
            Held::Until(Some(until)) => format!("⏸ 自动更新已暂停至 {until}，发送 /update unhold 可提前恢复。"),
            Held::GoesOn => "▶ 自动更新已恢复。".to_owned(),
            Held::WasNot => "自动更新没有被暂停。".to_owned(),
            Held::Failed(reason) => format!("❌ 自动更新保持原状：{reason}"),
        }
    }

    fn restarted(&self, why: &Restart, goes_on: bool) -> String {
        let how = match why {
            Restart::Asked { kind, from, to } => match kind.as_str() {
                "update" => format!("网关已重启（更新 {from} → {to}）"),
                "revert" => format!("网关已重启（按要求从 {from} 回退到 {to}）"),
                "reload" => "网关已重启（重新读取了配置）".to_owned(),
                _ => "网关已按要求重启".to_owned(),
            },
            Restart::WentBack { from, to } => format!("网关已重启（{from} 未通过验证，已退回 {to}）"),
            Restart::Stopped => "网关已重启（系统服务被重启）".to_owned(),
            Restart::Crashed => "网关异常终止后已重新启动".to_owned(),
        };
        let rest = if goes_on { "未完成的回答会继续。" } else { "" };
        format!("♻ {how}。{rest}")
    }

    fn version(&self, version: &str, generation: u64) -> String {
        format!("hermes {version}（第 {generation} 代）")
    }

    fn digest_unknown(&self) -> &'static str {
        "尚未得知"
    }

    fn state(&self, state: &State<'_>) -> String {
        let version = self.version(state.version, state.generation);
        let phase = phase_named(state.phase);
        let waiting = state.waiting.as_ref().map_or(String::new(), |wait| format!("，正在等待{}", waited_for(wait)));
        format!("{version}，PID {}，已运行 {} 秒，{phase}{waiting}", state.pid, state.up.as_secs())
    }

    fn updates(&self, updates: &Updates<'_>) -> String {
        let window = updates.window.map_or(String::new(), |window| format!("（{window}）"));
        let mut text = match updates.applies {
            true => format!("更新：自动安装{window}"),
            false => "更新：按要求安装".to_owned(),
        };
        let mut add = |part: String| text.push_str(&part);
        match updates.held {
            Some(Some(until)) => add(format!("，已暂停至 {until}")),
            Some(None) => add("，已暂停".to_owned()),
            None => {}
        }
        if let Some(version) = updates.available {
            add(format!("，有新版本 {version}"));
        }
        if let Some(percent) = updates.deferred {
            add(format!("，目前只面向 {percent}% 的安装，不包括这里"));
        }
        if let Some(error) = updates.error {
            add(format!("，上次查找失败（{error}）"));
        }
        if let Some(next) = updates.next_check {
            add(format!("，{} 分钟后再次查找", next.as_secs().div_ceil(60)));
        }
        text
    }

    fn queued(&self, messages: usize) -> String {
        format!("{messages} 条消息等待处理")
    }

    fn agent_line(&self, agent: &AgentState<'_>) -> String {
        let title = agent.title.map_or(String::new(), |title| format!("（{title}）"));
        let error = agent.error.map_or(String::new(), |error| format!("：{error}"));
        let state = match agent.state {
            "starting" => "正在启动",
            "ready" => "就绪",
            "down" => "未运行",
            other => other,
        };
        format!("智能体 {}{title}：{state}，{} 轮对话进行中{error}", agent.name, agent.turns)
    }

    fn platform_line(&self, name: &str, link: &LinkState, next: Duration) -> String {
        let state = match link {
            LinkState::Connecting => "正在连接".to_owned(),
            LinkState::Connected => "已连接".to_owned(),
            LinkState::Paused => format!("已暂停；发送 /platform resume {name} 可恢复"),
            LinkState::Retrying { error_code, error_message, .. } => {
                format!("{} 秒后重试（{error_code}：{error_message}）", next.as_secs())
            }
            LinkState::Fatal { error_code, error_message } => format!("已放弃（{error_code}：{error_message}）"),
        };
        format!("平台 {name}：{state}")
    }

    fn paused(&self, platform: &str, what: Paused) -> String {
        match what {
            Paused::Now => format!("⏸ {platform} 已暂停：不再接收和发送任何消息。"),
            Paused::Already => format!("⏸ {platform} 已经处于暂停状态。"),
            Paused::GoesOn => format!("▶ {platform} 已恢复。"),
            Paused::WasNot => format!("{platform} 没有暂停。"),
            Paused::Here => format!(
                "⚠ 这里就是 {platform}：暂停之后，这里收不到也发不出任何消息。只能在另一个平台上发送 \
                 /platform resume {platform}，或在网关所在的机器上执行 hermes gateway platform resume {platform} \
                 来恢复。确定要暂停，请发送：/platform pause {platform} here"
            ),
        }
    }

    fn unknown_platform(&self, name: &str, known: &[&str]) -> String {
        if known.is_empty() {
            return format!("“{name}”不是可以暂停的平台：目前没有配置任何平台。");
        }
        format!("“{name}”不是可以暂停的平台。可选的有：{}", known.join("、"))
    }

    fn pause_failed(&self, platform: &str, reason: &str) -> String {
        format!("❌ {platform} 保持原状：{reason}")
    }

    fn recovered(&self) -> &'static str {
        "♻️ 恢复的回复——网关在发送过程中重启过，这条消息可能重复：\n"
    }

    fn sent_again(&self) -> &'static str {
        "♻️ 重新发送——无法确认第一次是否送达，这条消息可能重复：\n"
    }

    fn file_not_sent(&self, name: &str, why: &NotSent, link: Option<&str>) -> String {
        let why = match why {
            NotSent::TooLarge { bytes_max } => format!("文件超过 {} MiB", bytes_max >> 20),
            NotSent::TooMany => "一次回答中的文件过多".to_owned(),
            NotSent::Outside => "它不是智能体工作目录中的文件".to_owned(),
            NotSent::Unreadable => "无法读取".to_owned(),
            NotSent::Unsupported => "这里无法发送此类文件".to_owned(),
            NotSent::Refused(why) => format!("平台没有接受：{why}"),
        };
        let link = link.map(|link| format!("\n{link}")).unwrap_or_default();
        format!("📎 {name}（未发送：{why}）{link}")
    }

    fn no_answer(&self) -> &'static str {
        "（没有回答）"
    }

    fn cut(&self) -> &'static str {
        "\n…（内容过长，不适合在聊天中显示，其余部分已截断）"
    }

    fn reply_stopped(&self) -> &'static str {
        "⚡ 已停止。"
    }
}

/// The kind of a handoff.
fn named(kind: &str) -> &str {
    match kind {
        "restart" => "重启",
        "reload" => "重新加载",
        "update" => "更新",
        "revert" => "回退",
        "rollback" => "回滚",
        other => other,
    }
}

/// Where a handoff is; the names are those of `handoff::Phase`.
fn phase_named(phase: &str) -> &str {
    match phase {
        "serving" => "正常服务",
        "probation" => "试运行",
        "stage" => "准备新版本",
        "preflight" => "预检",
        "drain" => "等待发送完成",
        "quiesce" => "暂停各部分",
        "seal" => "封存状态",
        "exec" => "替换程序",
        "adopt" => "接管",
        other => other,
    }
}

/// Who is waited for, and for how long.
fn waited_for(wait: &Wait) -> String {
    let platforms: Vec<String> = wait.platforms.iter().map(|name| format!("平台“{name}”")).collect();
    format!("{}（已 {} 秒，最多还有 {} 秒）", platforms.join("、"), wait.waited, wait.left)
}
