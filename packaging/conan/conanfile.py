# A draft: conan create packaging/conan, in a checkout of the repository.
import os
import re
from conan import ConanFile
from conan.tools.cmake import CMake, cmake_layout
from conan.tools.files import copy, load


class BitstackConan(ConanFile):
    name = "bitstack"
    description = "Neural network weights as a stack of 1-bit blocks, as many as memory allows"
    license = "MIT"
    settings = "os", "arch", "compiler", "build_type"
    options = {"shared": [True, False]}
    default_options = {"shared": False}
    generators = "CMakeToolchain", "CMakeDeps"

    def root(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def set_version(self):
        self.version = re.search(r'BITSTACK_VERSION "([^"]*)"', load(self, os.path.join(self.root(), "bitstack.h"))).group(1)

    def export_sources(self):
        for pattern in ("bitstack*.h", "CMakeLists.txt", "LICENSE", "packaging/bitstack*"):
            copy(self, pattern, self.root(), self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))

    def package_info(self):
        self.cpp_info.libs = ["bitstack"]
        self.cpp_info.defines = ["BITSTACK_POOL"]
        self.cpp_info.system_libs = ["m", "pthread"]
