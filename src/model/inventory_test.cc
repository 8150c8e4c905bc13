// The inventory against the published totals of the released checkpoints, to the last digit.
#include "model/inventory.h"

#include <doctest/doctest.h>

using namespace nautile;

namespace {

Totals totals_of(const ModelConfig& config, DraftKind draft, ExpertFormat experts = ExpertFormat::kMxfp4) {
  const ModelConfig full = draft == DraftKind::kDspark ? with_dspark(config) : config;
  return inventory_totals(full, expected_tensors(full, {experts, draft, ExpertFormat::kMxfp4}));
}

int64_t parameters(const Totals& totals, Component component) {
  return totals.main[static_cast<size_t>(component)].parameters;
}

size_t tensors_under(const std::vector<ExpectedTensor>& tensors, const std::string& prefix) {
  size_t count = 0;
  for (const ExpectedTensor& tensor : tensors) count += tensor.name.starts_with(prefix);
  return count;
}

}  // namespace

TEST_CASE("parameters of the published shapes, part by part") {
  const Totals flash = totals_of(*shape_config("v4-flash"), DraftKind::kMtp);
  CHECK(flash.parameters() == 284'332'240'471);
  CHECK(flash.active_parameters() == 13'270'101'591);
  CHECK(flash.draft.parameters == 6'610'048'891);
  CHECK(parameters(flash, Component::kEmbedding) == 529'530'880);
  CHECK(parameters(flash, Component::kHead) == 529'530'880);
  CHECK(parameters(flash, Component::kAttention) == 4'599'054'336);
  CHECK(parameters(flash, Component::kCompressorCsa) == 176'257'536);
  CHECK(parameters(flash, Component::kCompressorHca) == 85'207'040);
  CHECK(parameters(flash, Component::kIndexer) == 225'730'176);
  CHECK(parameters(flash, Component::kMhc) == 33'884'439);
  CHECK(parameters(flash, Component::kGate) == 45'099'008);
  CHECK(parameters(flash, Component::kRoutedExperts) == 277'025'390'592);
  CHECK(parameters(flash, Component::kSharedExperts) == 1'082'130'432);
  CHECK(parameters(flash, Component::kNorms) == 425'152);

  const Totals pro = totals_of(*shape_config("v4-pro"), DraftKind::kMtp);
  CHECK(pro.parameters() == 1'572'997'201'763);
  CHECK(pro.active_parameters() == 48'852'402'019);
  CHECK(pro.draft.parameters == 25'840'145'979);
  CHECK(parameters(pro, Component::kAttention) == 18'293'456'896);
  CHECK(parameters(pro, Component::kCompressorCsa) == 440'540'160);
  CHECK(parameters(pro, Component::kCompressorHca) == 229'588'480);
  CHECK(parameters(pro, Component::kIndexer) == 501'384'960);
  CHECK(parameters(pro, Component::kMhc) == 84'069'603);
  CHECK(parameters(pro, Component::kGate) == 167'925'504);
  CHECK(parameters(pro, Component::kNorms) == 1'014'400);
}

TEST_CASE("bytes and tensor counts of the four releases") {
  const ModelConfig flash = *shape_config("v4-flash"), pro = *shape_config("v4-pro");
  CHECK(totals_of(flash, DraftKind::kMtp).bytes() == 159'609'485'896);
  CHECK(totals_of(pro, DraftKind::kMtp).bytes() == 864'704'792'696);
  CHECK(totals_of(flash, DraftKind::kDspark).bytes() == 166'878'536'440);
  CHECK(totals_of(pro, DraftKind::kDspark).bytes() == 892'727'580'904);
  CHECK(totals_of(flash, DraftKind::kMtp).tensors() == 69'187);
  CHECK(totals_of(pro, DraftKind::kMtp).tensors() == 145'116);
  CHECK(totals_of(flash, DraftKind::kDspark).tensors() == 72'317);
  CHECK(totals_of(pro, DraftKind::kDspark).tensors() == 149'782);
  CHECK(totals_of(flash, DraftKind::kNone).tensors() == 67'612);
  // FP8 experts (the Base releases) and NVFP4: known to one part in a thousand.
  CHECK(static_cast<double>(totals_of(pro, DraftKind::kMtp, ExpertFormat::kNvfp4).bytes()) ==
        doctest::Approx(913.1e9).epsilon(0.001));
  CHECK(static_cast<double>(totals_of(flash, DraftKind::kMtp, ExpertFormat::kNvfp4).bytes()) ==
        doctest::Approx(168.3e9).epsilon(0.001));
}

TEST_CASE("stored elements by dtype of Flash") {
  const auto elements = totals_of(*shape_config("v4-flash"), DraftKind::kMtp).elements_by_dtype;
  const std::map<std::string, uint64_t> published = {{"BF16", 1'415'259'264},    {"F8_E4M3", 6'023'020'544},
                                                     {"F8_E8M0", 8'858'737'664}, {"I8", 141'733'920'768},
                                                     {"F32", 36'168'018},        {"I64", 2'327'040}};
  CHECK(elements == published);
}

TEST_CASE("tensors a layer and a draft block") {
  const ModelConfig config = *shape_config("v4-flash");
  const auto mtp = expected_tensors(config, {ExpertFormat::kMxfp4, DraftKind::kMtp, ExpertFormat::kMxfp4});
  CHECK(tensors_under(mtp, "layers.0.") == 1565);  // window, hash-routed
  CHECK(tensors_under(mtp, "layers.2.") == 1576);  // CSA, hash-routed
  CHECK(tensors_under(mtp, "layers.3.") == 1569);  // HCA
  CHECK(tensors_under(mtp, "layers.42.") == 1576);
  CHECK(tensors_under(mtp, "mtp.0.") == 1575);
  const ModelConfig with = with_dspark(config);
  const auto dspark = expected_tensors(with, {ExpertFormat::kMxfp4, DraftKind::kDspark, ExpertFormat::kMxfp4});
  CHECK(tensors_under(dspark, "mtp.0.") == 1568);
  CHECK(tensors_under(dspark, "mtp.1.") == 1565);
  CHECK(tensors_under(dspark, "mtp.2.") == 1572);
  const auto pro = expected_tensors(*shape_config("v4-pro"), {});
  CHECK(tensors_under(pro, "layers.0.") == 2337);
  CHECK(tensors_under(pro, "layers.2.") == 2344);
}
