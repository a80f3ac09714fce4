#include <algorithm>
#include <numeric>

#include "backend/cuda/gpu_test_support.h"
#include "backend/cuda/kernels.h"
#include "core/tensor_recipe.h"

namespace baton::cuda {
namespace {

// The device makes the bytes that the host makes, of every width, also where the last word is not whole.
TEST(FillTest, RecipesMakeTheHostsBytes) {
  Random random(FreshSeed());
  for (const int32_t element : {1, 2, 4}) {
    TensorRecipe recipe{.key = static_cast<uint64_t>(random.Below(int64_t{1} << 62)), .element_bytes = element};
    std::vector<uint8_t> table(recipe.table_bytes());
    for (uint8_t& byte : table) byte = static_cast<uint8_t>(random.Below(256));
    recipe.table = table.data();
    const DeviceArray<uint8_t> device_table(table);
    for (const int64_t count : {int64_t{1}, int64_t{7}, int64_t{8}, int64_t{1000003}, int64_t{1} << 22}) {
      DeviceArray<uint8_t> output((count + 8) * element);
      ASSERT_EQ(LaunchMakeElements(recipe, device_table.get(), output.get(), count, nullptr), cudaSuccess);
      const std::vector<uint8_t> made = output.Download();
      std::vector<uint8_t> expected(count * element);
      MakeElements(recipe, 0, expected);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), made.begin())) << count << " of " << element << " bytes";
      EXPECT_TRUE(std::all_of(made.begin() + count * element, made.end(), [](uint8_t byte) { return byte == 0xff; }))
          << "wrote past " << count << " elements of " << element << " bytes";
    }
  }
}

}  // namespace
}  // namespace baton::cuda
