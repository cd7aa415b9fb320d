#include "gatefold/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gatefold/base/errors.h"
#include "gatefold/base/status_macros.h"
#include "gatefold/base/utf8.h"
#include "gatefold/tokenizer/proto_wire.h"

namespace gatefold {
namespace {

absl::StatusOr<SentencePiece> ReadPiece(absl::string_view bytes) {
  SentencePiece piece;
  ProtoWire wire(bytes);
  while (wire.Next()) {
    if (wire.field() == 1) piece.text = std::string(wire.bytes());
    if (wire.field() == 2) piece.score = wire.AsFloat();
    if (wire.field() == 3) piece.type = wire.AsInt();
  }
  GF_RETURN_IF_ERROR(wire.status());
  if (FindInvalidUtf8(piece.text) != kValidUtf8) return absl::InvalidArgumentError("not UTF-8");
  if (!std::isfinite(piece.score)) return absl::InvalidArgumentError("score is not a number");
  return piece;
}

absl::Status ReadTrainerSpec(absl::string_view bytes, SentencePieceModel* model) {
  ProtoWire wire(bytes);
  while (wire.Next()) {
    switch (wire.field()) {
      case 3:
        model->model_type = wire.AsInt();
        break;
      case 24:
        model->whitespace_as_suffix = wire.AsInt() != 0;
        break;
      case 35:
        model->byte_fallback = wire.AsInt() != 0;
        break;
      case 41:
        model->bos_id = wire.AsInt();
        break;
      case 42:
        model->eos_id = wire.AsInt();
        break;
      default:
        break;
    }
  }
  return Annotate(wire.status(), "trainer_spec");
}

absl::Status ReadNormalizerSpec(absl::string_view bytes, SentencePieceModel* model) {
  ProtoWire wire(bytes);
  while (wire.Next()) {
    switch (wire.field()) {
      case 2:
        model->has_charsmap = !wire.bytes().empty();
        break;
      case 3:
        model->add_dummy_prefix = wire.AsInt() != 0;
        break;
      case 4:
        model->remove_extra_whitespaces = wire.AsInt() != 0;
        break;
      case 5:
        model->escape_whitespaces = wire.AsInt() != 0;
        break;
      default:
        break;
    }
  }
  return Annotate(wire.status(), "normalizer_spec");
}

absl::Status CheckSupported(const SentencePieceModel& model) {
  constexpr int64_t kBpe = 2;
  if (model.model_type != kBpe) {
    return FeatureUnsupported(
        absl::StrCat("trainer_spec.model_type ", model.model_type, " (not BPE)"));
  }
  if (model.whitespace_as_suffix) {
    return FeatureUnsupported("trainer_spec.treat_whitespace_as_suffix");
  }
  if (model.has_charsmap) {
    return FeatureUnsupported("normalizer_spec.precompiled_charsmap");
  }
  if (!model.escape_whitespaces) {
    return FeatureUnsupported("normalizer_spec.escape_whitespaces off");
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SentencePieceModel> ReadSentencePieceModel(absl::string_view file) {
  SentencePieceModel model;
  ProtoWire wire(file);
  while (wire.Next()) {
    if (wire.field() == 1) {
      auto piece = ReadPiece(wire.bytes());
      if (!piece.ok()) {
        return Annotate(piece.status(), absl::StrCat("pieces[", model.pieces.size(), "]"));
      }
      model.pieces.push_back(*std::move(piece));
    } else if (wire.field() == 2) {
      GF_RETURN_IF_ERROR(ReadTrainerSpec(wire.bytes(), &model));
    } else if (wire.field() == 3) {
      GF_RETURN_IF_ERROR(ReadNormalizerSpec(wire.bytes(), &model));
    }
  }
  GF_RETURN_IF_ERROR(wire.status());
  if (model.pieces.empty()) return absl::InvalidArgumentError("no pieces");
  GF_RETURN_IF_ERROR(CheckSupported(model));
  return model;
}

}  // namespace gatefold
