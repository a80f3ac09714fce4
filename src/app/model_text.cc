#include "app/model_text.h"

#include <algorithm>
#include <filesystem>

#include "app/engine_factory.h"
#include "model/hf_model.h"
#include "model/model.h"
#include "model/shape_preset.h"
#include "text/tokenizer_json.h"

namespace baton {
namespace {

// One token for each byte, and one that ends answers: enough for simulated engines, whose tokens mean nothing.
TokenizerData ByteTokenizer(int32_t vocabulary) {
  TokenizerData data;
  // GPT-2's stand-ins: printable bytes are themselves, the others follow from U+0100 on.
  int next = 256;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    const int code = printable ? byte : next++;
    std::string text;
    if (code < 0x80) {
      text += static_cast<char>(code);
    } else {
      text += static_cast<char>(0xc0 | (code >> 6));
      text += static_cast<char>(0x80 | (code & 0x3f));
    }
    data.tokens.push_back(text);
  }
  // The rest of the vocabulary decodes to a space and its number.
  for (int32_t id = 256; id < vocabulary - 1; ++id) data.tokens.push_back(Cat("\xc4\xa0", "t", id));
  data.tokens.push_back("<|end|>");
  data.added_tokens.push_back({.id = vocabulary - 1, .content = "<|end|>", .special = true});
  data.pre_tokenizer_preset = "gpt-2";
  data.eos = {vocabulary - 1};
  data.chat_template =
      "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
      "{% if add_generation_prompt %}assistant: {% endif %}";
  return data;
}

void ApplyConfiguration(const EngineFlags& flags, const ModelConfig& config, const GenerationDefaults& generation,
                        ModelText& text) {
  text.vocabulary = config.vocabulary;
  text.max_model_len =
      flags.max_model_len > 0 ? std::min(flags.max_model_len, config.max_position) : config.max_position;
  text.temperature = generation.temperature;
  text.top_p = generation.top_p;
  text.min_p = generation.min_p;
  text.top_k = generation.top_k;
  text.repetition_penalty = generation.repetition_penalty;
}

// Only the configuration: the front end has no use for made-up weights. A model without a tokenizer gets the simple
// one.
absl::StatusOr<ModelText> ReadDummyText(const EngineFlags& flags) {
  ModelText text{.name = std::filesystem::path(flags.model).filename()};
  ModelParts parts;
  if (absl::StatusOr<ModelConfig> shape = ShapePreset(flags.model); shape.ok()) {
    parts.config = *std::move(shape);
  } else {
    BATON_ASSIGN_OR_RETURN(parts, ReadHfConfiguration(flags.model));
  }
  ApplyConfiguration(flags, parts.config, parts.generation, text);
  absl::StatusOr<TokenizerData> tokenizer = ReadTokenizerDirectory(flags.model);
  text.tokenizer = tokenizer.ok() ? *std::move(tokenizer) : ByteTokenizer(text.vocabulary);
  return text;
}

ModelText SimpleText(const EngineFlags& flags, const SimOptions& sim) {
  return {.name = "sim",
          .tokenizer = ByteTokenizer(sim.vocabulary),
          .vocabulary = sim.vocabulary,
          .max_model_len = flags.max_model_len > 0 ? flags.max_model_len : sim.max_model_len};
}

// Of a model on simulated engines: they draw from a vocabulary of their own, which must be the model's.
absl::Status FitToSimulation(const EngineFlags& flags, const SimOptions& sim, ModelText& text) {
  if (text.vocabulary != sim.vocabulary) {
    return InvalidArgument("--sim: ", text.name, " has ", text.vocabulary, " tokens and the simulated engine ",
                           sim.vocabulary, ": add vocabulary=", text.vocabulary, " to the profile");
  }
  text.max_model_len = flags.max_model_len > 0 ? flags.max_model_len : sim.max_model_len;
  return absl::OkStatus();
}

absl::StatusOr<ModelText> ReadText(const EngineFlags& flags) {
  if (flags.load_format == "dummy") return ReadDummyText(flags);
  ModelText text;
  BATON_ASSIGN_OR_RETURN(const Model model, LoadModel(flags.model));
  text.name = model.name();
  ApplyConfiguration(flags, model.config(), model.generation(), text);
  if (model.tokenizer()) {
    text.tokenizer = *model.tokenizer();
  } else {
    BATON_ASSIGN_OR_RETURN(text.tokenizer, ReadTokenizerDirectory(model.directory()));
  }
  return text;
}

}  // namespace

absl::StatusOr<ModelText> ReadModelText(const EngineFlags& flags) {
  if (flags.sim.empty()) return ReadText(flags);
  BATON_ASSIGN_OR_RETURN(const SimOptions sim, ParseSimProfile(flags.sim));
  if (flags.model.empty()) return SimpleText(flags, sim);
  BATON_ASSIGN_OR_RETURN(ModelText text, ReadText(flags));
  BATON_RETURN_IF_ERROR(FitToSimulation(flags, sim, text));
  return text;
}

}  // namespace baton
