// What the CUDA runtime finds of a driver of an earlier day: its version.
extern "C" int cuDriverGetVersion(int* version) {
  *version = 11080;
  return 0;
}
