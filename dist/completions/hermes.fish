# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_hermes_global_optspecs
    string join \n home= h/help V/version
end

function __fish_hermes_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_hermes_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_hermes_using_subcommand
    set -l cmd (__fish_hermes_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c hermes -n "__fish_hermes_needs_command" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hermes -n "__fish_hermes_needs_command" -s V -l version -d 'Print version'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "setup" -d 'Configure the gateway by questions and answers, and start it'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "gateway" -d 'Run, watch and steer the gateway'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "self-update" -d 'Update the gateway in place, or what it is started with next'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "update" -d 'Update the gateway in place, or what it is started with next'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "config" -d 'Look at the configuration'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "pairing" -d 'Let people in by the codes that they were given in a chat'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "weixin" -d 'Log in to Weixin (WeChat)'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "chat" -d 'Talk to the gateway\'s agent from this terminal'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "doctor" -d 'Look for what is wrong, and say how to put it right'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "agent" -d 'Run a built-in ACP agent, for this gateway or any other ACP client'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "completion" -d 'Print completions for a shell'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "handoff-check" -d 'Say whether this program could take over the state on standard input'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "install-image" -d 'Put the image on standard input into the home'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "verify-release" -d 'Say whether an archive is a release that its publisher has signed; for scripts/install'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "conduit" -d 'Hold the connection to DingTalk, for the gateway at standard input'
complete -c hermes -n "__fish_hermes_needs_command" -f -a "exec-probe" -d 'Measure what it costs to replace this image, for scripts/bench'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l platform -d 'Where the gateway talks to people' -r -f -a "telegram\t'A Telegram bot'
dingtalk\t'A DingTalk robot'
weixin\t'A Weixin (WeChat) account, by a QR code'
web\t'A page in the browser, on this machine'
none\t'The terminal alone: `hermes chat`'"
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l secret-file -d 'File with the bot\'s token (Telegram) or the app\'s secret (DingTalk); `-` is standard input' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l client-id -d 'DingTalk: the app\'s AppKey' -r
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l api-url -d 'Another server than the platform\'s' -r
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l allow -d 'Who may talk, by user id; may be given several times' -r
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l admin -d 'Who may use admin commands, too, by user id; may be given several times' -r
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l agent -d 'Who answers: `echo`, `openai`, `keep` for the one that is configured, or the command of an ACP agent' -r
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l base-url -d 'openai: address of the API, up to and with its version' -r
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l model -d 'openai: name of the model' -r
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l api-key-file -d 'openai: file with the API key' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l install -d 'Install the gateway as a service of systemd'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l no-install -d 'Do not install it'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l system -d 'The machine\'s service, with the home /var/lib/hermes [default for root, unless another home is named or there is a ~/.hermes]'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l user -d 'A service of this user, with the home ~/.hermes [default for everyone else]'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l no-check -d 'Do not try the token at the platform'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -s y -l yes -d 'Ask nothing: what has no flag gets its default'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand setup" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "run" -d 'Run the gateway in the foreground'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "status" -d 'Show what runs, how it is, and what happened lately'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "history" -d 'Show the handoffs: when, who, why, from and to which version, and how they ended'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "logs" -d 'Show the gateway\'s log, from the journal'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "restart" -d 'Start the gateway\'s program anew in the same process; running turns go on'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "reload" -d 'Read the configuration anew; running turns go on'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "stop" -d 'Stop the gateway'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "install" -d 'Install the gateway as a systemd service and start it, or refresh what is installed'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "uninstall" -d 'Stop the service and remove it; data stay without --purge'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "start" -d 'Start the installed service'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "list" -d 'Show the installed services and what runs'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "adopt" -d 'Let the gateway become this program, in place; what a package does after an upgrade'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and not __fish_seen_subcommand_from run status history logs restart reload stop install uninstall start list adopt platform" -f -a "platform" -d 'Hold a chat platform back, or let it go on'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from run" -l config -d 'The configuration [default: gateway.toml in the home directory]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from run" -l log-format -d 'How to log [default: the journal under systemd, else text]' -r
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from run" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from status" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from status" -s w -l watch -d 'Go on showing it, until Ctrl-C'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from status" -l full -l deep -d 'Show everything: each phase of the handoffs, whole digests, totals'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from status" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from status" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from history" -s n -l lines -d 'How many handoffs to show, the newest first' -r
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from history" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from history" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from history" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from logs" -s n -l lines -d 'How many of the latest lines to show' -r
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from logs" -l since -d 'Only what is not older: a time as of journalctl(1), such as "10 min ago" or "2026-11-27 03:00"' -r
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from logs" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from logs" -s f -l follow -d 'Go on showing what comes'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from logs" -l handoffs -d 'Only starts, stops and handoffs'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from logs" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from logs" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from restart" -l reason -d 'Why, for the history' -r
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from restart" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from restart" -l force -d 'Do not wait for messages that are being sent'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from restart" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from restart" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from reload" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from reload" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from reload" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from stop" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from stop" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l run-as-user -d 'The user that the system service runs as [default: hermes, which is created]' -r
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l system -d 'The machine\'s service, with the home /var/lib/hermes [default for root, unless another home is named or there is a ~/.hermes]'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l user -d 'A service of this user, with the home ~/.hermes [default for everyone else]'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l socket -d 'Let systemd hold the control socket, too, so that whoever connects starts the gateway'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l webhook -d 'Let systemd hold the listener of Telegram\'s webhook, too'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l web -d 'Let systemd hold the listener of the web pages, too, so that a visit starts the gateway'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l force -d 'Replace unit files that were changed by hand, or are somebody else\'s'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l no-start -d 'Do not start the gateway'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from install" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -l system -d 'The machine\'s service, with the home /var/lib/hermes [default for root, unless another home is named or there is a ~/.hermes]'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -l user -d 'A service of this user, with the home ~/.hermes [default for everyone else]'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -l purge -d 'Remove the home with everything in it, too: configuration, messages, versions'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -l force -d 'Remove unit files that are somebody else\'s'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -s y -l yes -d 'Do not ask'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from uninstall" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from start" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from start" -l system -d 'The machine\'s service, with the home /var/lib/hermes [default for root, unless another home is named or there is a ~/.hermes]'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from start" -l user -d 'A service of this user, with the home ~/.hermes [default for everyone else]'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from start" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from list" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from adopt" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from adopt" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from adopt" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from platform" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from platform" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from platform" -f -a "list" -d 'Show the platforms and how their links are'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from platform" -f -a "pause" -d 'Take in nothing and send nothing, until it is resumed; also over restarts'
complete -c hermes -n "__fish_hermes_using_subcommand gateway; and __fish_seen_subcommand_from platform" -f -a "resume" -d 'Go on'
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l version -d 'Update to this version instead of the newest' -r
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l hold -d 'Let nothing be updated by itself, for a time (7d), until a date (2026-12-24), or until --unhold' -r
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l config -d 'The configuration of a gateway that does not run [default: gateway.toml in the home directory]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l check -d 'Only say whether there is a newer release'
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l revert -d 'Go back to the version that served before, which needs no network'
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -s y -l yes -d 'Do not ask'
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l dry-run -d 'Get, verify and try the version, but do not switch to it or keep it'
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l unhold -d 'Let it be updated by itself again'
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand self-update" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand update" -l version -d 'Update to this version instead of the newest' -r
complete -c hermes -n "__fish_hermes_using_subcommand update" -l hold -d 'Let nothing be updated by itself, for a time (7d), until a date (2026-12-24), or until --unhold' -r
complete -c hermes -n "__fish_hermes_using_subcommand update" -l config -d 'The configuration of a gateway that does not run [default: gateway.toml in the home directory]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand update" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand update" -l check -d 'Only say whether there is a newer release'
complete -c hermes -n "__fish_hermes_using_subcommand update" -l revert -d 'Go back to the version that served before, which needs no network'
complete -c hermes -n "__fish_hermes_using_subcommand update" -s y -l yes -d 'Do not ask'
complete -c hermes -n "__fish_hermes_using_subcommand update" -l dry-run -d 'Get, verify and try the version, but do not switch to it or keep it'
complete -c hermes -n "__fish_hermes_using_subcommand update" -l unhold -d 'Let it be updated by itself again'
complete -c hermes -n "__fish_hermes_using_subcommand update" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand update" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand config; and not __fish_seen_subcommand_from check" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand config; and not __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand config; and not __fish_seen_subcommand_from check" -f -a "check" -d 'Say everything that is wrong with a configuration, as the gateway would; 78 if it would be refused'
complete -c hermes -n "__fish_hermes_using_subcommand config; and __fish_seen_subcommand_from check" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand config; and __fish_seen_subcommand_from check" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand config; and __fish_seen_subcommand_from check" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and not __fish_seen_subcommand_from list approve revoke" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and not __fish_seen_subcommand_from list approve revoke" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and not __fish_seen_subcommand_from list approve revoke" -f -a "list" -d 'Show who was let in, and who has asked to be'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and not __fish_seen_subcommand_from list approve revoke" -f -a "approve" -d 'Let somebody in who has shown you their code'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and not __fish_seen_subcommand_from list approve revoke" -f -a "revoke" -d 'Take back that somebody was let in'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from list" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from list" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from approve" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from approve" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from approve" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from revoke" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from revoke" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand pairing; and __fish_seen_subcommand_from revoke" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and not __fish_seen_subcommand_from login" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and not __fish_seen_subcommand_from login" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and not __fish_seen_subcommand_from login" -f -a "login" -d 'Get a bot account by a QR code that you scan with your phone, and write it into gateway.toml'
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and __fish_seen_subcommand_from login" -l base-url -d 'Another service than Weixin\'s, for tests' -r
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and __fish_seen_subcommand_from login" -l within -d 'How long to wait for the login' -r
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and __fish_seen_subcommand_from login" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and __fish_seen_subcommand_from login" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand weixin; and __fish_seen_subcommand_from login" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand chat" -l chat -d 'The chat to join; everyone in a chat sees the same' -r
complete -c hermes -n "__fish_hermes_using_subcommand chat" -l once -d 'Send this one message, print the answer and exit' -r
complete -c hermes -n "__fish_hermes_using_subcommand chat" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand chat" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand doctor" -l config -d 'The configuration [default: gateway.toml in the home directory]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand doctor" -l seen -d 'What root has seen of the unit, for the child that looks as the owner of the home' -r
complete -c hermes -n "__fish_hermes_using_subcommand doctor" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand doctor" -l offline -d 'Ask nobody outside of this machine'
complete -c hermes -n "__fish_hermes_using_subcommand doctor" -l json -d 'Print one JSON document'
complete -c hermes -n "__fish_hermes_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand agent; and not __fish_seen_subcommand_from echo openai" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand agent; and not __fish_seen_subcommand_from echo openai" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand agent; and not __fish_seen_subcommand_from echo openai" -f -a "echo" -d 'Answer with what was said; streams, asks and crashes on request'
complete -c hermes -n "__fish_hermes_using_subcommand agent; and not __fish_seen_subcommand_from echo openai" -f -a "openai" -d 'Answer with a model behind an OpenAI-compatible chat completions API'
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from echo" -l chunks -d 'Answer every prompt with this many numbered chunks' -r
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from echo" -l chunk-bytes -d 'Size of a numbered chunk in bytes' -r
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from echo" -l delay -d 'Wait before every chunk, like 20ms' -r
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from echo" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from echo" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from openai" -l base-url -d 'Address of the API, up to and with its version' -r
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from openai" -l model -d 'Name of the model' -r
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from openai" -l api-key-file -d 'File with the API key; without it OPENAI_API_KEY is used, if set' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from openai" -l system -d 'What the model is told before every conversation' -r
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from openai" -l history -d 'Where the conversations are kept [default: $HERMES_HOME/agents/openai]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from openai" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand agent; and __fish_seen_subcommand_from openai" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand completion" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand completion" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand handoff-check" -l config -d 'The configuration [default: gateway.toml in the home directory]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand handoff-check" -l log-format -d 'How to log [default: the journal under systemd, else text]' -r
complete -c hermes -n "__fish_hermes_using_subcommand handoff-check" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand handoff-check" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand install-image" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand install-image" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand verify-release" -l key -d 'The publisher\'s public key, as base64' -r
complete -c hermes -n "__fish_hermes_using_subcommand verify-release" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand verify-release" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand conduit" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand conduit" -s h -l help -d 'Print help'
complete -c hermes -n "__fish_hermes_using_subcommand exec-probe" -l count -d 'How many samples to take' -r
complete -c hermes -n "__fish_hermes_using_subcommand exec-probe" -l home -d 'The gateway\'s home directory [env: HERMES_HOME] [default: ~/.hermes]' -r -F
complete -c hermes -n "__fish_hermes_using_subcommand exec-probe" -s h -l help -d 'Print help'
