#include "gatefold/chat_template/chat_template.h"

#include <cstdlib>
#include <filesystem>

#include "gatefold/checkpoint/temp_dir.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gatefold {
namespace {

using nlohmann::ordered_json;
using ::testing::HasSubstr;

ChatTemplateInputs Conversation() {
  ChatTemplateInputs inputs;
  inputs.messages = {{"system", "Be brief."},
                     {"user", " Hi \n"},
                     {"assistant", "<think>\nhm\n</think>\n\nHello."},
                     {"user", "Bye"}};
  inputs.bos_token = "<s>";
  inputs.eos_token = "</s>";
  return inputs;
}

std::string Render(absl::string_view source, const ChatTemplateInputs& inputs) {
  const auto parsed = ChatTemplate::Parse(source);
  if (!parsed.ok()) return std::string(parsed.status().message());
  const auto text = parsed->Render(inputs);
  return text.ok() ? *text : std::string(text.status().message());
}

// Templates of published models.

constexpr char kChatMl[] =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' "
    "}}{% endif %}";

constexpr char kMixtral[] = R"({%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}

{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('conversation roles must alternate') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {%- if loop.first and system_message is defined %}
            {{- ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}
        {%- else %}
            {{- ' [INST] ' + message['content'] + ' [/INST]' }}
        {%- endif %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] + eos_token}}
    {%- endif %}
{%- endfor %}
)";

constexpr char kLlama3[] =
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = "
    "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim "
    "+ '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif "
    "%}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

TEST(ChatTemplate, WritesChatMl) {
  EXPECT_EQ(Render(kChatMl, Conversation()),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
            "<|im_start|>assistant\n<think>\nhm\n</think>\n\nHello.<|im_end|>\n"
            "<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, WritesMixtral) {
  EXPECT_EQ(Render(kMixtral, Conversation()),
            "<s> [INST] Be brief.\n\n Hi \n [/INST] <think>\nhm\n</think>\n\nHello.</s> [INST] Bye "
            "[/INST]");
  ChatTemplateInputs inputs = Conversation();
  inputs.messages.pop_back();
  inputs.messages.push_back({"assistant", "again"});
  const auto parsed = ChatTemplate::Parse(kMixtral);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  const auto text = parsed->Render(inputs);
  EXPECT_TRUE(absl::IsInvalidArgument(text.status()));
  EXPECT_EQ(text.status().message(), "chat template: conversation roles must alternate");
}

TEST(ChatTemplate, WritesLlama3) {
  ChatTemplateInputs inputs = Conversation();
  inputs.messages.resize(2);
  EXPECT_EQ(Render(kLlama3, inputs),
            "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  inputs.add_generation_prompt = false;
  EXPECT_THAT(Render(kLlama3, inputs), ::testing::EndsWith("Hi<|eot_id|>"));
}

// What Jinja2 3.1 with the options of the reference makes of each.
struct Sample {
  const char* source;
  const char* text;
};
void PrintTo(const Sample& sample, std::ostream* out) { *out << sample.source; }

class Samples : public ::testing::TestWithParam<Sample> {};

TEST_P(Samples, RenderAsInJinja) {
  ChatTemplateInputs inputs;
  inputs.now = absl::FromUnixSeconds(1753700000);
  inputs.variables = ordered_json::parse(R"({
    "s": "Hello wOrld, it's é ß", "l": [3, 1, 2], "n": 5, "e": "", "x": null,
    "d": {"b": 1, "a": [1, "x'y\"", null, true, 1.0]},
    "o": [{"a": 1, "b": "Z"}, {"a": 3, "b": "y"}, {"a": 2}]})");
  EXPECT_EQ(Render(GetParam().source, inputs), GetParam().text) << GetParam().source;
}

INSTANTIATE_TEST_SUITE_P(
    Expressions, Samples,
    ::testing::Values(
        Sample{"{{ s|upper }}|{{ s.title() }}|{{ s|title }}",
               "HELLO WORLD, IT'S É SS|Hello World, It'S É Ss|Hello World, It's É SS"},
        Sample{"{{ s[1:4] }} {{ s[::-1] }} {{ s[-3:] }} {{ s[0] }}",
               "ell ß é s'ti ,dlrOw olleH é ß H"},
        Sample{"{{ l[::-1] }} {{ l[5:] }} {{ l[-2:1] }} {{ l[9] is defined }}",
               "[2, 1, 3] [] [] False"},
        Sample{"{{ d }}", "{'b': 1, 'a': [1, 'x\\'y\"', None, True, 1.0]}"},
        Sample{"{{ d|tojson }}", R"({"b": 1, "a": [1, "x'y\"", null, true, 1.0]})"},
        Sample{"{{ d.a[:1]|tojson(indent=2) }}{{ s[-1:]|tojson(ensure_ascii=true) }}",
               "[\n  1\n]\"\\u00df\""},
        Sample{
            "{{ 1 + 2 * 3 - 4 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 2 * 'ab' }}",
            "3 -4 2 3.5 3.0 abab"},
        Sample{"{{ 'a' ~ 1 ~ none ~ true }} {{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }}",
               "a1NoneTrue True False"},
        Sample{"{{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e-5 }} {{ 1e15 }}",
               "0.30000000000000004 1e+16 1e-05 1000000000000000.0"},
        Sample{"[{{ zz }}] {{ zz|default('x') }} {{ e|default('x', true) }} {{ zz is defined }}",
               "[] x x False"},
        Sample{"{{ 'yes' if n == 4 }}|{{ 'a' if n else 'b' if x else 'c' }}", "|a"},
        Sample{"{{ o|map(attribute='b', default='q')|join('|') }} {{ ['a ']|map('trim')|first }}",
               "Z|y|q a"},
        Sample{
            "{{ o|selectattr('a', 'gt', 1)|map(attribute='a')|list }} {{ l|reject('odd')|list }}",
            "[3, 2] [2]"},
        Sample{"{{ x|selectattr('a', 'equalto', 1)|list|length }}{{ x|map('upper')|list }}"
               "{{ 0|reject('none')|list }}{{ zz|select|list }}",
               "0[][][]"},
        Sample{"{% for v in [l|select('string'), []|map('upper'), []|unique, {}|items, []|reverse,"
               "zz|items, o|selectattr('q'), ''|reverse, {}.items(), []|sort, []|map('upper')|list]"
               " %}{{ 1 if v else 0 }}{% endfor %}",
               "11111110000"},
        Sample{"{{ l|sort }} {{ l|max }} {{ l|sum }} {{ d|dictsort }}",
               "[1, 2, 3] 3 6 [('a', [1, 'x\\'y\"', None, True, 1.0]), ('b', 1)]"},
        Sample{"{{ 'a</t> b'.split('</t>')[-1].lstrip() }} {{ 'a,b'.partition(',') }}",
               "b ('a', ',', 'b')"},
        Sample{"{{ ' a  b é '.rsplit(none, 1) }} {{ ' a  b  c '.split(maxsplit=1) }}",
               "[' a  b', 'é'] ['a', 'b  c ']"},
        Sample{"{{ ' a\u3000b '.split() }}{{ ' a\u3000b '.rsplit() }}{{ ' a '.rsplit(none, 0) }}",
               "['a', 'b']['a', 'b'][' a']"},
        Sample{"{{ ['é\u00A0\u3000', '\u200D\x7F\x01', '\U000E0001\U0001F600', '\\\\ \\'\"'] }}",
               "['é\\xa0\\u3000', '\\u200d\\x7f\\x01', '\\U000e0001\U0001F600', '\\\\ \\'\"']"},
        Sample{
            "{{ 'aé'.replace('', '-') }} {{ 'aéb'|replace('', '-', 2) }} {{ e.replace('', 'x') }}",
            "-a-é- -a-éb x"},
        Sample{"{{ n|round }} {{ 17|round(-1) }} {{ true|round(2) }} {{ n|round(0, 'ceil') }} "
               "{{ 2.5|round }}",
               "5 20 1 5.0 2.0"},
        Sample{"[{{ ' a '.strip('') }}|{{ ' a '|trim(none) }}]", "[ a |a]"},
        Sample{"{{ x is none }} {{ d is mapping }} {{ s is iterable }} {{ n is divisibleby 5 }} "
               "{{ 'b' in d }} {{ 9 not in l }} {{ n is not string }}",
               "True True True True True True True"},
        Sample{
            "{{ x.foo is defined }} {{ d.items is defined }} {{ d['a'][1] }} {{ d.get('q', 7) }}",
            "False True x'y\" 7"},
        Sample{"{{ 'a\\tb\\x41\\u00e9' 'c' }} {{ '\\d' }}", "a\tbAéc \\d"},
        Sample{"{{ 'a\\n\\nb'|indent(2, true) }}", "  a\n\n  b"},
        Sample{"{{ strftime_now('%Y') }}", "2025"}));

INSTANTIATE_TEST_SUITE_P(
    Statements, Samples,
    ::testing::Values(
        Sample{"{% for i in l if i > 1 %}{{ loop.index }}:{{ i }}/{{ loop.length }} {% endfor %}",
               "1:3/2 2:2/2 "},
        Sample{"{% for i in [] %}x{% else %}none{% endfor %}", "none"},
        Sample{
            "{% for i in l %}{{ i }}{% break %}{% else %}!{% endfor %}"
            "{% for i in l %}{{ i }}{% continue %}{% else %}!{% endfor %}"
            "{% for i in l %}{% if i == 1 %}{% break %}{% endif %}{{ i }}{% else %}!{% endfor %}",
            "3!312!3"},
        Sample{"{% set q = 1 %}{% for i in l %}{% set q = q + i %}{{ q }} {% endfor %}{{ q }}",
               "4 2 3 1"},
        Sample{"{% set ns = namespace(q=1) %}{% for i in l %}{% set ns.q = ns.q + i %}{% endfor %}"
               "{{ ns.q }}",
               "7"},
        Sample{"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}",
               "b=1;a=[1, 'x\\'y\"', None, True, 1.0];"},
        Sample{"{% for i in range(9) %}{% if i == 3 %}{% continue %}{% endif %}{% if i == 6 %}"
               "{% break %}{% endif %}{{ i }}{% endfor %}",
               "01245"},
        Sample{"{% for i in l %}{{ loop.previtem }}<{{ i }}>{{ loop.nextitem }} {% endfor %}",
               "<3>1 3<1>2 1<2> "},
        Sample{
            "{% macro m(a, b='B', c=none) %}<{{ a }}{{ b }}{{ c }}>{% endmacro %}{{ m(1, c=3) }}",
            "<1B3>"},
        Sample{"{% macro m(a) %}{% if a > 0 %}{{ a }}{{ m(a - 1) }}{% endif %}{% endmacro %}{{ "
               "m(3) }}",
               "321"},
        Sample{"{% set a %}x{{ n }}{% endset %}{{ a|upper }}{% set b, c = 1, 2 %}{{ b }}{{ c }}",
               "X512"},
        Sample{"{% if n %}{% set inif = 1 %}{% endif %}{{ inif }}", "1"},
        Sample{"{% generation %}a{{ n }}{% endgeneration %}{% raw %}{{ x }}{% endraw %}",
               "a5{{ x }}"},
        Sample{"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
        Sample{"a\n  {%- if true -%}\n  b\n  {%- endif -%}\nc\n", "abc"},
        Sample{"a\n  {%+ if true %}\n  b\n  {% endif +%}\nc", "a\n    b\n\nc"},
        Sample{"{# c #}\n  {# d #}\nx {# e #} y  {{ n }}\n", "x  y  5"},
        Sample{"a\u3000{{- n -}}\u00A0b\n\u3000{% if true %}c{%\u3000endif %}", "a5b\nc"},
        Sample{"\u3000{% raw -%}\u3000{{\u3000{%- endraw\u3000-%}\u3000b", "{{b"},
        Sample{"{{ '}}' }}{{ {'a': {'b': 1}}['a']['b'] }}", "}}1"}));

INSTANTIATE_TEST_SUITE_P(
    Errors, Samples,
    ::testing::Values(
        Sample{"a\n{{ zz.b }}", "chat template: line 2: 'zz' is undefined, so it has no b"},
        Sample{"{{ 1 / 0 }}", "chat template: line 1: division by zero"},
        Sample{"{{ 'a' + 1 }}", "chat template: line 1: a string + an integer"},
        Sample{"\n\n{% include 'x' %}",
               "chat template: line 3: the statement include is not supported"},
        Sample{"{{ l|nosuch }}", "chat template: line 1: the filter nosuch is not supported"},
        Sample{"{{ l is nosuch(1) }}", "chat template: line 1: the test nosuch is not supported"},
        Sample{"{{ s.encode() }}",
               "chat template: line 1: the method encode of a string is not supported"},
        Sample{"{{ {}.append(1) }}",
               "chat template: line 1: the method append of a mapping is not supported"},
        Sample{"{{ s.center(9) }}",
               "chat template: line 1: the method center of a string is not supported"},
        Sample{"{{ s.count('l', 4) }}",
               "chat template: line 1: argument 2 of count is not supported"},
        Sample{"{{ l|sum(start=5) }}",
               "chat template: line 1: argument start of sum is not supported"},
        Sample{"{{ s|length(1) }}", "chat template: line 1: argument 1 of length is not supported"},
        Sample{"{{ ['f']|map('int', base=16)|list }}",
               "chat template: line 1: argument base of int is not supported"},
        Sample{"{{ nosuch() }}", "chat template: line 1: the function nosuch is not supported"},
        Sample{"{% if n %}", "chat template: line 1: the template ends before endif"},
        Sample{"{{ n", "chat template: line 1: a tag is not closed"},
        Sample{"{{ 'n }}", "chat template: line 1: a string is not closed"},
        Sample{"{% endfor %}", "chat template: line 1: the statement endfor is not supported"},
        Sample{"{{ “n” }}", "chat template: line 1: unexpected character '“'"},
        Sample{"{{ (1, 2] }}", "chat template: line 1: unexpected ']'"}));

TEST(ChatTemplate, StopsWorkWithoutEnd) {
  const char* const hostile[] = {
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{% set ns = namespace(s='aaaaaaaaaaaaaaaa') %}{% for i in range(60) %}"
      "{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% endfor %}{{ ns.l }}",
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}"
      "{% endfor %}{{ ns.l == ns.l[:] }}",
      "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = [ns.l] %}{% endfor "
      "%}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{{ range(1000000000000)|list }}",
      "{{ 'x' * 1000000000000 }}",
      "{{ 'a'.ljust(1000000000000) }}",
      "{% set ns = namespace() %}{% set ns.self = [ns] %}",
  };
  for (const char* source : hostile) {
    const auto parsed = ChatTemplate::Parse(source);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_FALSE(parsed->Render(Conversation()).ok()) << source;
  }
  for (const char* unit : {"{% if 1 %}", "{{ (", "{{ [", "{{ not ", "{{ -", "{{ 1 if 1 else "}) {
    std::string source;
    for (int i = 0; i < 20000; ++i)
      source += i == 0 ? unit : absl::string_view(unit).substr(3).data();
    EXPECT_FALSE(ChatTemplate::Parse(source).ok()) << unit;
  }
  std::string sum = "{{ 1";
  for (int i = 0; i < 100000; ++i) sum += "+1";
  EXPECT_FALSE(ChatTemplate::Parse(sum + " }}").ok());
}

TEST(ChatTemplate, RefusesTextThatIsNotUtf8) {
  EXPECT_FALSE(ChatTemplate::Parse("a\xFF").ok());
  ChatTemplateInputs inputs = Conversation();
  inputs.messages[1].content = "\xC3";
  EXPECT_THAT(Render(kChatMl, inputs), HasSubstr("messages[1].content"));
  inputs = Conversation();
  inputs.variables["v"] = "\xFF";
  EXPECT_THAT(Render(kChatMl, inputs), HasSubstr("variables.v"));
}

TEST(LoadChatTemplate, TakesTheFileBeforeTheConfig) {
  TempDir dir;
  EXPECT_TRUE(absl::IsNotFound(LoadChatTemplate(dir.path()).status()));
  dir.Write("tokenizer_config.json", R"({"bos_token": {"content": "<b>"}, "eos_token": "<e>",
      "chat_template": [{"name": "tool_use", "template": "no"},
                        {"name": "default", "template": "{{ bos_token }}1{{ eos_token }}"}]})");
  auto loaded = LoadChatTemplate(dir.path());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->Render({}).value(), "<b>1<e>");
  dir.Write("chat_template.jinja", "{{ bos_token }}2");
  loaded = LoadChatTemplate(dir.path());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->Render({}).value(), "<b>2");
}

TEST(LoadChatTemplate, RefusesConfigsWithoutOne) {
  TempDir dir;
  dir.Write("tokenizer_config.json", "{}");
  EXPECT_TRUE(absl::IsNotFound(LoadChatTemplate(dir.path()).status()));
  dir.Write("tokenizer_config.json", R"({"chat_template": 7})");
  EXPECT_TRUE(absl::IsInvalidArgument(LoadChatTemplate(dir.path()).status()));
  dir.Write("tokenizer_config.json", R"({"chat_template": [{"name": "x", "template": "y"}]})");
  EXPECT_TRUE(absl::IsNotFound(LoadChatTemplate(dir.path()).status()));
}

// Templates that are not part of the repository: ../shared/tokenizers, or
// $GATEFOLD_SHARED/tokenizers.
std::string RenderShared(const std::string& from, const std::string& as) {
  const char* shared = std::getenv("GATEFOLD_SHARED");
  const std::string file =
      std::string(shared != nullptr ? shared : "../shared") + "/tokenizers/" + from;
  if (!std::filesystem::exists(file)) return "";
  TempDir dir;
  std::filesystem::copy_file(file, dir.File(as));
  const auto loaded = LoadChatTemplate(dir.path());
  if (!loaded.ok()) return std::string(loaded.status().message());
  ChatTemplateInputs inputs = Conversation();
  inputs.now = absl::FromUnixSeconds(1753700000);
  const auto text = loaded->Render(inputs);
  return text.ok() ? *text : std::string(text.status().message());
}

TEST(SharedTemplates, RenderAsInJinja) {
  const std::string qwen25 = RenderShared("qwen2.5.tokenizer_config.json", "tokenizer_config.json");
  if (qwen25.empty()) GTEST_SKIP() << "../shared/tokenizers is not there";
  EXPECT_EQ(qwen25, Render(kChatMl, Conversation()));
  EXPECT_EQ(RenderShared("qwen3.tokenizer_config.json", "tokenizer_config.json"),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi \n<|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
            "<|im_start|>assistant\n");
  EXPECT_THAT(RenderShared("gpt-oss.chat_template.jinja", "chat_template.jinja"),
              ::testing::EndsWith(
                  "Current date: 2025-07-28\n\nreasoning: medium\n\n# Valid channels: analysis, "
                  "commentary, final. Channel must be included for every message.\nCalls to these "
                  "tools must go to the commentary channel: 'functions'.<|end|><|start|>developer"
                  "<|message|># Instructions\n\nBe brief.<|end|><|start|>user<|message|> Hi \n"
                  "<|end|><|start|>assistant<|message|><think>\nhm\n</think>\n\nHello.<|end|>"
                  "<|start|>user<|message|>Bye<|end|><|start|>assistant"));
}

}  // namespace
}  // namespace gatefold
