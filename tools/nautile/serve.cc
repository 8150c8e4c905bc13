// nautile serve: the model behind HTTP, for OpenAI, Anthropic and Responses clients.
//
// The port opens at once; the model loads on a thread of its own, and /v1/health/ready says when it is there.
#include <fmt/format.h>

#include <atomic>
#include <cstdlib>
#include <thread>

#include "engine/engine.h"
#include "model_flags.h"
#include "serve/service.h"
#include "sys/clock.h"

namespace nautile {
namespace {

struct ServeFlags {
  ModelFlags model;
  EngineOptions engine;
  std::string speculation = "auto";
  std::string backend = "engine", scripts;
  std::string host = "127.0.0.1";
  int port = 8000, metrics_port = 0;
  bool allow_unauthenticated = false, quiet = false, no_ui = false;
  std::vector<std::string> names;
  std::string mode = "high", profile = "auto", cache_scope = "key";
  int64_t max_output = 393216;
  serve::ServiceOptions service;
  http::ServerOptions server;
  std::vector<std::string> hosted;
};

void env_default(std::string& value, const char* name) {
  if (const char* text = std::getenv(name); text != nullptr && *text != '\0') value = text;
}

std::string lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// The names a checkpoint is known by, from its directory's and its size.
void name_model(serve::ServedModel& model, const std::string& directory_name, const std::vector<std::string>& given) {
  const std::string lowered = lower(directory_name);
  const bool pro = lowered.find("v4-pro") != std::string::npos, flash = lowered.find("v4-flash") != std::string::npos;
  model.name = directory_name;
  if (pro || flash) {
    const std::string kind = pro ? "pro" : "flash";
    model.name = "deepseek-ai/deepseek-v4-" + kind;
    model.names = {"deepseek-v4-" + kind, directory_name, "deepseek-ai/" + directory_name};
    if (flash) model.names.push_back("deepseek-flash");
    model.legacy = {{"deepseek-chat", ReasoningMode::kNonThink}, {"deepseek-reasoner", ReasoningMode::kThinkHigh}};
  } else {
    model.names = {"nautile"};
  }
  if (given.empty()) return;
  model.names.push_back(model.name);
  model.name = given[0];
  model.names.insert(model.names.end(), given.begin() + 1, given.end());
}

Result<EncodingProfile> profile_of(const std::string& name, bool official) {
  if (name == "auto") return official ? EncodingProfile::kOfficial : EncodingProfile::kPreview;
  if (name == "official" || name == "v4_0731") return EncodingProfile::kOfficial;
  if (name == "preview" || name == "v4_preview") return EncodingProfile::kPreview;
  return Status(Code::kInvalidArgument, fmt::format("no encoding \"{}\"", name), "--effort-profile",
                "choose auto, preview or official");
}

struct Loaded {
  std::unique_ptr<LoadedModel> model;
  std::optional<Tokenizer> tokenizer;  // of the scripted backend, which loads nothing else
};

Status fill_model(serve::ServedModel& served, const ServeFlags& flags, bool official) {
  NAUTILE_ASSIGN(served.tokens, ChatTokens::find(*served.tokenizer));
  NAUTILE_ASSIGN(served.profile, profile_of(flags.profile, official));
  NAUTILE_ASSIGN(served.default_mode, parse_mode(flags.mode));
  const ChatTokens& t = served.tokens;
  std::vector<TokenId> ends = {t.eos, t.bos, t.user, t.assistant};
  if (t.latest_reminder >= 0) ends.push_back(t.latest_reminder);
  served.trie = std::make_shared<const TokenTrie>(TokenTrie::build(*served.tokenizer, ends));
  served.max_output = flags.max_output;
  served.created = std::time(nullptr);
  return {};
}

Result<std::shared_ptr<serve::Backend>> load_backend(ServeFlags& flags, FileSystem& files, serve::Service& service) {
  const double begin = seconds_now();
  auto backend = std::make_shared<serve::Backend>();
  auto loaded = std::make_shared<Loaded>();
  backend->keeps_alive = loaded;
  serve::ServedModel& served = backend->model;
  if (flags.backend == "scripted") {
    if (flags.model.directory.empty()) {
      NAUTILE_ASSIGN(flags.model.directory, find_nano(files));
    }
    NAUTILE_ASSIGN(loaded->tokenizer, Tokenizer::load(files, flags.model.directory));
    served.tokenizer = &*loaded->tokenizer;
    NAUTILE_RETURN_IF_ERROR(fill_model(served, flags, false));
    serve::ScriptedOptions options;
    if (flags.engine.context_tokens > 0) options.context = flags.engine.context_tokens;
    options.max_sequences = static_cast<int>(flags.engine.max_sequences);
    options.max_queue = static_cast<int>(flags.engine.max_queued);
    served.context = options.context;
    served.fingerprint = "fp_scripted";
    served.quantization = "none";
    name_model(served, "scripted", flags.names);
    auto engine = std::make_unique<serve::ScriptedEngine>(*served.tokenizer, options);
    backend->scripted = engine.get();
    backend->engine = std::move(engine);
    if (!flags.scripts.empty()) {
      NAUTILE_ASSIGN(const std::string text, files.read(flags.scripts, 16 << 20));
      NAUTILE_ASSIGN(backend->scripts, parse_json(text, flags.scripts));
    }
  } else {
    flags.model.quiet = flags.quiet;
    flags.model.watch = [&](const LoadProgress& p) { service.loading(p.what, p.done, p.total); };
    NAUTILE_ASSIGN(loaded->model, flags.model.load(files));
    LoadedModel& model = *loaded->model;
    served.tokenizer = &model.tokenizer();
    NAUTILE_RETURN_IF_ERROR(fill_model(served, flags, model.official_encoding()));
    served.temperature = model.default_temperature();
    served.top_p = model.default_top_p();
    service.loading("starting the engine", 0, 0);
    NAUTILE_ASSIGN(std::unique_ptr<LocalEngine> engine, start_engine(model, flags.engine));
    served.context = engine->stats().context_tokens;
    served.quantization = "fp8";
    served.fingerprint = fmt::format(
        "fp_{:016x}", std::hash<std::string>{}(fmt::format("{} {} {} {}", flags.service.version, model.name(),
                                                           flags.model.numerics, name_of(served.profile))));
    name_model(served, model.name(), flags.names);
    backend->engine = std::move(engine);
  }
  backend->load_s = seconds_now() - begin;
  return backend;
}

void banner(const ServeFlags& flags, int port, bool keys) {
  const std::string shown = flags.host == "0.0.0.0" ? "127.0.0.1" : flags.host;
  fmt::print(stderr, "nautile serve: http://{}:{}  ({})\n", shown, port,
             keys ? "an API key is needed" : "no API key is needed");
  fmt::print(
      stderr,
      "  curl http://{}:{}/v1/chat/completions {}-H 'Content-Type: application/json' \\\n"
      "    -d '{{\"model\":\"nautile\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is 48 + 75?\"}}]}}'\n",
      shown, port, keys ? "-H \"Authorization: Bearer $KEY\" " : "");
}

Status check(ServeFlags& flags) {
  if (flags.backend != "engine" && flags.backend != "scripted") {
    return {Code::kInvalidArgument, fmt::format("no backend \"{}\"", flags.backend), "--backend",
            "choose engine or scripted"};
  }
  if (flags.speculation == "auto") {
    flags.engine.speculation = Speculation::kAuto;
  } else if (flags.speculation == "off") {
    flags.engine.speculation = Speculation::kOff;
  } else if (flags.speculation == "always") {
    flags.engine.speculation = Speculation::kAlways;
  } else {
    return {Code::kInvalidArgument, fmt::format("no speculation \"{}\"", flags.speculation), "--speculation",
            "choose auto, off or always"};
  }
  if (flags.cache_scope != "key" && flags.cache_scope != "global") {
    return {Code::kInvalidArgument, fmt::format("no cache scope \"{}\"", flags.cache_scope), "--cache-scope",
            "choose key or global"};
  }
  flags.service.cache_global = flags.cache_scope == "global";
  if (!flags.hosted.empty() && flags.hosted.size() != 3) {
    return {Code::kInvalidArgument, "a hosted price has three parts", "--hosted-usd-per-mtok", "give HIT,MISS,OUTPUT"};
  }
  if (!flags.hosted.empty()) {
    flags.service.hosted_hit = std::atof(flags.hosted[0].c_str());
    flags.service.hosted_miss = std::atof(flags.hosted[1].c_str());
    flags.service.hosted_output = std::atof(flags.hosted[2].c_str());
  }
  for (const char* name : {"NAUTILE_API_KEY", "VLLM_API_KEY"}) {
    std::string keys;
    env_default(keys, name);
    if (!keys.empty()) flags.service.api_keys.push_back(keys);
  }
  return {};
}

Status serve_all(ServeFlags& flags) {
  NAUTILE_RETURN_IF_ERROR(check(flags));
  const std::unique_ptr<FileSystem> files = real_files();
  serve::RequestLog log(stderr, flags.quiet ? serve::RequestLog::Level::kQuiet : serve::RequestLog::Level::kRequests);
  flags.service.loopback_only = serve::is_loopback(flags.host);
  flags.service.ui = !flags.no_ui;
  flags.service.model_shown = flags.model.directory.empty() ? "nano" : "loading";
  flags.server.server_name = "nautile/" + flags.service.version;
  flags.server.listeners = {{flags.host, flags.port}};
  if (flags.metrics_port > 0) {
    flags.server.listeners.push_back({flags.host, flags.metrics_port});
    flags.service.metrics_listener = 1;
  }
  serve::Service service(flags.service, *files, log);
  NAUTILE_RETURN_IF_ERROR(service.load_keys());
  if (!flags.service.loopback_only && !service.has_keys() && !flags.allow_unauthenticated) {
    return {Code::kInvalidArgument, "anybody who reaches this address could use the model", flags.host,
            "set an API key (--api-key, --api-key-file, NAUTILE_API_KEY), or give --allow-unauthenticated"};
  }
  NAUTILE_ASSIGN(const std::unique_ptr<http::Server> server, http::Server::listen(flags.server, service));
  service.attach(*server);
  banner(flags, server->port(), service.has_keys());
  std::atomic<bool> loaded = false;
  std::thread loader([&] {
    auto backend = load_backend(flags, *files, service);
    loaded = true;
    if (backend.ok()) {
      service.became_ready(std::move(backend).value());
    } else {
      service.load_failed(backend.status());
    }
  });
  server->run();
  if (!loaded) {
    // Told to end while it loads, which may go on for minutes and cannot be called off. Nothing was served yet, and a
    // file being written is under a name of its own until it is whole.
    std::fflush(nullptr);
    std::_Exit(kExitDone);
  }
  loader.join();
  service.close();
  return service.end();
}

void add_flags(ServeFlags& f, CLI::App& verb) {
  f.model.add(verb);
  verb.add_option("--host", f.host, "address to listen on; other than loopback needs a key")->capture_default_str();
  verb.add_option("--port", f.port, "0 takes any free one")
      ->envname("NIM_SERVER_PORT")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  verb.add_option("--metrics-port", f.metrics_port, "probes and metrics there, without a key")
      ->check(CLI::Range(0, 65535));
  verb.add_option("--api-key", f.service.api_keys,
                  "a key, or several with commas; may be repeated (also NAUTILE_API_KEY)");
  verb.add_option("--api-key-file", f.service.api_key_file,
                  "lines [name:]key [max_concurrent=N] [rpm=N] [tpm=N] [priority]; SIGHUP reads it again");
  verb.add_flag("--allow-unauthenticated", f.allow_unauthenticated,
                "let anybody in on an address that is not loopback");
  verb.add_option("--served-model-name", f.names, "the model's name in the API; may be repeated")
      ->envname("NIM_SERVED_MODEL_NAME");
  verb.add_flag("--default-model-if-missing", f.service.default_model, "requests need not name a model");
  verb.add_option("--default-reasoning-mode", f.mode, "non, low, high or max")->capture_default_str();
  verb.add_option("--effort-profile", f.profile, "what the modes print: auto, preview or official")
      ->capture_default_str();
  verb.add_option("--max-output-tokens", f.max_output, "longest answer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();

  verb.add_option("--context", f.engine.context_tokens, "tokens of one sequence; 0 is the model's own")
      ->envname("NIM_MAX_MODEL_LEN")
      ->capture_default_str();
  verb.add_option("--max-sequences", f.engine.max_sequences, "in one step")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  verb.add_option("--step-tokens", f.engine.step_tokens, "in one step; prefill chunks fill what decoding leaves")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--max-queue", f.engine.max_queued, "requests that may wait")
      ->check(CLI::Range(0, 100000))
      ->capture_default_str();
  verb.add_option("--state-memory", f.engine.state_bytes,
                  "bytes for running sequences, for example 8GB; 0 is what is free")
      ->transform(CLI::AsSizeValue(false));
  verb.add_option("--cache-memory", f.engine.cache_bytes, "bytes for the prefix cache; 0 is what is free")
      ->transform(CLI::AsSizeValue(false));
  verb.add_option("--cache-scope-budget", f.engine.cache_owner_bytes,
                  "bytes of the prefix cache that one key may fill (without keys: one user or salt); 0 is all")
      ->transform(CLI::AsSizeValue(false));
  verb.add_flag("!--no-prefix-cache", f.engine.prefix_cache, "compute every prompt anew");
  verb.add_option("--cache-directory", f.engine.disk_directory, "the prefix cache's tier on disk");
  verb.add_option("--cache-disk", f.engine.disk_bytes, "its bytes")->transform(CLI::AsSizeValue(false));
  verb.add_option("--cache-scope", f.cache_scope, "who shares cached prefixes: key (with user or salt) or global")
      ->capture_default_str();
  verb.add_option("--speculation", f.speculation, "auto, off or always")->capture_default_str();

  verb.add_option("--drain-timeout", f.service.drain_timeout_s, "seconds that running requests have after SIGTERM")
      ->capture_default_str();
  verb.add_option("--request-timeout", f.service.request_timeout_s, "seconds of a whole request; 0: none")
      ->capture_default_str();
  verb.add_option("--queue-timeout", f.service.queue_timeout_s, "seconds of waiting")->capture_default_str();
  verb.add_option("--sse-keepalive", f.service.keep_alive_s,
                  "seconds of silence in a stream before a sign of life; 0: never")
      ->capture_default_str();
  verb.add_option("--header-timeout", f.server.header_timeout_s)->capture_default_str();
  verb.add_option("--body-timeout", f.server.body_timeout_s)->capture_default_str();
  verb.add_option("--idle-timeout", f.server.idle_timeout_s, "seconds of an idle connection")->capture_default_str();
  verb.add_option("--write-timeout", f.server.write_timeout_s, "seconds a client may take nothing")
      ->capture_default_str();
  verb.add_option("--max-body", f.server.max_body, "bytes of a request")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  verb.add_option("--max-bodies", f.server.max_bodies, "bytes of all requests that are being read together")
      ->transform(CLI::AsSizeValue(false))
      ->capture_default_str();
  verb.add_option("--max-connections", f.server.max_connections)->capture_default_str();
  verb.add_option("--max-connections-per-address", f.server.max_per_address)->capture_default_str();
  verb.add_flag("--allow-half-close", f.server.allow_half_close, "a client that stops sending has not left");
  verb.add_option("--max-json-depth", f.service.limits.max_json_depth)
      ->check(CLI::Range(4, 512))
      ->capture_default_str();
  verb.add_option("--max-n", f.service.limits.n, "choices of a request")
      ->check(CLI::Range(1, 128))
      ->capture_default_str();
  verb.add_option("--allowed-hosts", f.service.allowed_hosts, "Host headers accepted on loopback beside its own names")
      ->delimiter(',');
  verb.add_option("--cors-origins", f.service.cors.origins, "origins of web pages that may call, or *")
      ->envname("NIM_CORS_ALLOW_ORIGINS")
      ->delimiter(',');
  verb.add_flag("--metrics-public", f.service.metrics_public, "metrics need no key");
  verb.add_flag("--strict-params", f.service.strict_params, "unknown fields are errors");
  verb.add_flag("--strict-reasoning-replay", f.service.strict_replay, "missing reasoning of tool turns is an error");
  verb.add_option("--responses-store", f.service.responses_kept,
                  "keep this many responses in memory, for previous_response_id and GET; 0 keeps none")
      ->capture_default_str();
  verb.add_option("--responses-age", f.service.responses_age_s, "seconds for which a response is kept")
      ->capture_default_str();
  verb.add_flag("--ignore-hosted-tools", f.service.ignore_hosted_tools, "leave out tools that a provider would run");
  verb.add_flag("--list-aliases", f.service.list_aliases, "in /v1/models");
  verb.add_flag("--reasoning-alias", f.service.reasoning_alias, "also answer with a field named reasoning");
  verb.add_flag("--enable-per-request-metrics", f.service.per_request_metrics);
  verb.add_flag("--no-ui", f.no_ui, "no page at /");
  verb.add_flag("--quiet", f.quiet, "no line for each request on stderr");
  verb.add_option("--usd-per-hour", f.service.usd_per_hour, "what this machine costs, for the cost metrics");
  verb.add_option("--hosted-usd-per-mtok", f.hosted, "HIT,MISS,OUTPUT: a hosted price to compare with")->delimiter(',');
  verb.add_option("--backend", f.backend, "engine, or scripted: no model, answers from scripts, for tests")
      ->capture_default_str();
  verb.add_option("--scripts", f.scripts, "a JSON file of named scripts for the scripted backend");
}

}  // namespace

void add_serve(CLI::App& app, Run& run) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* verb =
      app.add_subcommand("serve",
                         "The model behind HTTP: OpenAI, Anthropic and Responses APIs.\n"
                         "  nautile serve\n"
                         "  nautile serve /models/DeepSeek-V4-Flash --api-key-file /etc/nautile/keys --host 0.0.0.0");
  add_flags(*flags, *verb);
  verb->callback([flags, &run] {
    run = [flags] {
      const Status status = serve_all(*flags);
      return status.ok() ? kExitDone : fail(status);
    };
  });
}

}  // namespace nautile
